"""The per-token table: one row per generated token, with both models' statistics of it, as Parquet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.divergence.token_statistics import MASSES, OVERLAPS
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.storage.parquet_files import write_parquet
from tokenshift.analysis.storage.provenance import table_metadata

_INTEGERS = ("rank_base", "rank_rl", "top1_base", "top1_rl", "rl_top1_rank_base")
SCORED = (
    "js",
    "forward_kl",
    "reverse_kl",
    "js_top_p",
    "entropy_base",
    "entropy_rl",
    "logp_base",
    "logp_rl",
    "rank_base",
    "rank_rl",
    "top1_base",
    "top1_rl",
    "rl_top1_rank_base",
    "rl_top1_prob_base",
    *(f"overlap_{k}" for k in OVERLAPS),
    *(f"{mass}_{k}" for mass in MASSES for k in OVERLAPS),
)
"""Columns that `token_statistics` gives; `js` and the KLs of whole distributions, `js_top_p` of truncated ones."""

TABLE_SCHEMA = pa.schema(
    [
        ("problem_id", pa.int64()),
        ("sample_id", pa.int64()),
        ("trajectory", pa.dictionary(pa.int8(), pa.string())),  # who produced it, or what it is for
        ("position", pa.int32()),  # 0 for the completion's first token
        ("length", pa.int32()),  # of the completion, tokens
        ("token_id", pa.int32()),
        ("token", pa.string()),
        ("correct", pa.bool_()),
        *((name, pa.int32() if name in _INTEGERS else pa.float32()) for name in SCORED),
    ]
)


def build_table(
    trajectories: Sequence[Trajectory],
    statistics: Mapping[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    kind: str,
) -> pa.Table:
    """The rows of trajectories, in the trajectories' order.

    Args:
        trajectories: the responses that were scored.
        statistics: `SCORED`'s outputs of `token_statistics`, `(N,)` each, over all their completion tokens in order.
        tokenizer: the models' tokenizer, for the tokens' texts.
        kind: value of the column `trajectory`.
    """
    lengths = np.array([len(trajectory.completion_ids) for trajectory in trajectories], dtype=np.int64)
    token_ids = np.concatenate([np.asarray(t.completion_ids, dtype=np.int64) for t in trajectories] or [np.array([])])
    distinct, text_index = np.unique(token_ids.astype(np.int64), return_inverse=True)
    texts = np.array([tokenizer.decode([int(index)]) for index in distinct], dtype=object)
    correct = np.array([trajectory.correct for trajectory in trajectories], dtype=object)
    columns: dict[str, Any] = {
        "problem_id": np.repeat([trajectory.problem_id for trajectory in trajectories], lengths),
        "sample_id": np.repeat([trajectory.sample_id for trajectory in trajectories], lengths),
        "trajectory": pa.array([kind] * len(token_ids), pa.string()).dictionary_encode(),
        "position": np.concatenate([np.arange(length) for length in lengths] or [np.array([])]),
        "length": np.repeat(lengths, lengths),
        "token_id": token_ids,
        "token": texts[text_index],
        "correct": np.repeat(correct, lengths),
        **{name: statistics[name].cpu().numpy() for name in SCORED},
    }
    return pa.table(
        [pa.array(columns[field.name]).cast(field.type) for field in TABLE_SCHEMA],
        schema=TABLE_SCHEMA,
    )


def write_table(path: Path, table: pa.Table, metadata: Mapping[str, Any]) -> None:
    """Write a Parquet file that appears whole.

    Args:
        path: the file.
        table: rows of `TABLE_SCHEMA`.
        metadata: models, sampling and whatever else the rows come from, kept as JSON under the key `tokenshift`;
            thresholds and versions are added.
    """
    write_parquet(path, table.replace_schema_metadata(table_metadata(metadata)), compression="zstd")
