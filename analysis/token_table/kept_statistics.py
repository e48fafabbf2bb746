"""Statistics of tokens that were scored while they were sampled, in files until the responses are judged."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.storage.parquet_files import read_parquet, write_parquet
from tokenshift.analysis.token_table.schema import SCORED, TABLE_SCHEMA, build_table
from tokenshift.analysis.token_table.scoring import Scorer

KEPT = "statistics"
"""Name of the units that the files are."""

_SCHEMA = pa.schema(
    [
        ("problem_id", pa.int64()),
        ("sample_id", pa.int64()),
        ("completion_ids", pa.list_(pa.int32())),
        *((name, pa.list_(TABLE_SCHEMA.field(name).type)) for name in SCORED),
    ]
)

Sampler = Callable[[Sequence[Request]], tuple[list[Trajectory], dict[str, torch.Tensor]]]
"""Makes responses, and `SCORED`'s statistics of their tokens, `(N,)` each, in the responses' order."""


@dataclass(frozen=True)
class KeepingGenerator:
    """Samples as a `Generator` does, and keeps the statistics of what it sampled.

    Attributes:
        sampler: samples and scores at once.
        folder: where the statistics are kept: a file of each batch.
        kind: who writes.
    """

    sampler: Sampler
    folder: Path
    kind: str

    def __call__(self, requests: Sequence[Request]) -> list[list[int]]:
        """Completion ids of each request."""
        trajectories, statistics = self.sampler(requests)
        if trajectories:
            ends = np.cumsum([len(trajectory.completion_ids) for trajectory in trajectories])[:-1]
            columns = {name: np.split(statistics[name].cpu().numpy(), ends) for name in SCORED}
            columns |= {
                name: [getattr(trajectory, name) for trajectory in trajectories]
                for name in ("problem_id", "sample_id", "completion_ids")
            }
            arrays = [pa.array(list(columns[field.name])).cast(field.type) for field in _SCHEMA]
            first = trajectories[0]
            name = f"{first.problem_id}-{first.sample_id}-{len(trajectories)}.parquet"
            write_parquet(self.folder / self.kind / name, pa.table(arrays, schema=_SCHEMA))
        return [trajectory.completion_ids for trajectory in trajectories]


class KeptScorer:
    """Makes the table's rows of statistics that were kept; a `Scorer` reads the responses of which there are none.

    All statistics of a kind are in memory while its table is made, about 90 bytes a token.

    Args:
        folder: as of `KeepingGenerator`.
        scorer: reads responses; called only if it is needed.
        tokenizer: the models' tokenizer.
    """

    def __init__(self, folder: Path, scorer: Callable[[], Scorer], tokenizer: PreTrainedTokenizerBase) -> None:
        self._folder, self._tokenizer = folder, tokenizer
        self._scorer = functools.cache(scorer)
        self._kept: dict[str, dict[tuple[int, int], Mapping[str, np.ndarray]]] = {}

    def table(self, trajectories: Sequence[Trajectory], kind: str) -> pa.Table:
        """The per-token rows of trajectories, in their order."""
        kept = self._of_kind(kind)
        rows = [kept.get((each.problem_id, each.sample_id)) for each in trajectories]
        known = [
            row
            for row, each in zip(rows, trajectories, strict=True)
            if row is not None and row["completion_ids"].tolist() == each.completion_ids
        ]
        if len(known) < len(rows):
            return self._scorer().table(trajectories, kind)
        statistics = {
            name: torch.from_numpy(np.concatenate([row[name] for row in known] or [np.array([])])) for name in SCORED
        }
        return build_table(trajectories, statistics, self._tokenizer, kind)

    def top_tokens(self, trajectory: Trajectory, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """The most probable tokens, as the scorer gives them."""
        return self._scorer().top_tokens(trajectory, k)

    def _of_kind(self, kind: str) -> dict[tuple[int, int], Mapping[str, np.ndarray]]:
        if kind not in self._kept:
            self._kept[kind] = {}
            for file in sorted((self._folder / kind).glob("*.parquet")):
                table = read_parquet(file, schema=_SCHEMA)
                parts = {name: _split(table[name].combine_chunks()) for name in ("completion_ids", *SCORED)}
                keys = zip(table["problem_id"].to_pylist(), table["sample_id"].to_pylist(), strict=True)
                for index, key in enumerate(keys):
                    self._kept[kind][key] = {name: values[index] for name, values in parts.items()}
        return self._kept[kind]


def _split(lists: pa.ListArray) -> list[np.ndarray]:
    """The values of each list."""
    return np.split(lists.flatten().to_numpy(zero_copy_only=False), np.cumsum(lists.value_lengths().to_numpy())[:-1])
