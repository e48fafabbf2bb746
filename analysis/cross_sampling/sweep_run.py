"""A sweep of interventions, from two models to one row per response on disk.

A folder gets `thresholds.json`, and `cells/` with one Parquet file per policy, which readers take as one table. Work
is cut into units whose contents depend on the settings alone: a run that was stopped, that had another number of
processes, or that was given more policies later ends in the same rows. With other threads or processes, and in other
batches, libraries may add in another order, so that scores and JS can differ in their last bits.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.cross_sampling.decoding import Decoding
from tokenshift.analysis.cross_sampling.intervention import CrossResponse
from tokenshift.analysis.cross_sampling.sweep import SweptPolicy
from tokenshift.analysis.cross_sampling.sweep_trees import SweepTrees
from tokenshift.analysis.sampling.requests import Prompt, prompt_groups, requests_of
from tokenshift.analysis.sampling.responses import Judge, judged
from tokenshift.analysis.storage.parquet_files import read_parquet, write_parquet
from tokenshift.analysis.storage.provenance import read_metadata, table_metadata
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.work_units import join_rows, run_units

UNIT = 4
"""Batches of a unit of work: a response that ends makes room for the next of its unit."""


SWEEP_SCHEMA = pa.schema(
    [
        ("direction", pa.string()),
        ("criterion", pa.string()),
        ("epsilon", pa.float64()),  # null for none and all
        ("budget", pa.float64()),  # wanted share of `match`; null where epsilon was given
        ("most", pa.int32()),
        ("gamma", pa.float64()),
        ("seed", pa.int64()),
        ("problem_id", pa.int64()),
        ("sample_id", pa.int64()),
        ("length", pa.int32()),  # of the completion, tokens
        ("correct", pa.bool_()),
        ("completion_ids", pa.list_(pa.int32())),
        # one item per intervened position
        ("positions", pa.list_(pa.int32())),
        ("effective", pa.list_(pa.bool_())),
        ("primary_ids", pa.list_(pa.int32())),
        ("intervention_ids", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),
        ("js", pa.list_(pa.float32())),
        ("reward", pa.float64()),  # null where nothing judged, and in files that were made before
        ("disagreements", pa.int32()),  # positions where the two draws differ; null in files that were made before
        ("sharpening", pa.float64()),  # the intervention is the base to this power; null where it is no such base
        ("match", pa.string()),  # tokens that a budget is a share of; null in files that were made before: intervened
    ]
)


def cell_file(folder: RunFolder, cell: SweptPolicy) -> Path:
    """The file of a policy's rows."""
    return folder.path / "cells" / f"{cell.name}.parquet"


def run_cells(
    folder: RunFolder,
    cells: Sequence[SweptPolicy],
    prompts: Sequence[Prompt],
    judge: Judge,
    run: Decoding,
    metadata: Mapping[str, Any],
    *,
    trees: SweepTrees | None = None,
    state: PartialState | None = None,
) -> None:
    """Write the judged rows of policies; nothing is done where they are there already.

    Args:
        folder: the folder of the run.
        cells: the policies of the sweep.
        prompts: the problems.
        judge: gives a verdict for each response.
        run: how responses are made.
        trees: the trees along which they are decoded, if they are.
        metadata: the metadata of the files, to which `engine` is added, the engine that ran.
        state: the processes.
    """
    state = state or PartialState()
    left = [cell for cell in cells if not cell_file(folder, cell).exists()]
    state.wait_for_everyone()  # all have looked before anything is written
    if trees is None:
        batches = prompt_groups(prompts, max(1, UNIT * run.batch_size // run.samples))
        units = [(cell, batch) for cell in left for batch in range(len(batches))]
    else:
        batches = trees.groups
        for seed in dict.fromkeys(cell.seed for cell in left):
            plans = [(cell.direction, cell.plan) for cell in left if cell.seed == seed]
            trees.grow(plans, seed, prompts, run.samples, f"cross-sampling, seed {seed}")
        units = [(cell, batch) for batch in range(len(batches)) for cell in left]  # a tree is read once
    files = [folder.units("cells") / f"{cell.name}-{batch:06d}.parquet" for cell, batch in units]

    def work(unit: int, file: Path) -> int:
        cell, batch = units[unit]
        if trees is None:
            responses = run(cell.direction, cell.plan, requests_of(batches[batch], run.samples), cell.seed)
        else:
            responses = trees.replay(cell.direction, cell.plan, cell.seed, batch)
        table = _rows(cell, responses, judge, run.tokenizer)
        write_parquet(file, table)
        return sum(len(response.completion_ids) for response in responses)

    run_units(files, work, "cross-sampling" if trees is None else "replaying", state=state)
    if state.is_main_process:
        parts_of: dict[SweptPolicy, list[Path]] = {}
        for (cell, _batch), file in zip(units, files, strict=True):
            parts_of.setdefault(cell, []).append(file)
        if parts_of:
            engine = run.engine_run if trees is None else trees.engine
            schema = SWEEP_SCHEMA.with_metadata(table_metadata({**metadata, "engine": engine}))
        for cell, parts in parts_of.items():
            join_rows(parts, cell_file(folder, cell), schema)
        shutil.rmtree(folder.units(""), ignore_errors=True)
    state.wait_for_everyone()


def engines_run(folder: RunFolder, cells: Sequence[SweptPolicy]) -> str:
    """The engines that decoded the rows of policies, by the metadata of their files; more than one with commas."""
    engines = (read_metadata(cell_file(folder, cell))["engine"] for cell in cells)
    return ", ".join(dict.fromkeys(engines))


def token_counts(folder: RunFolder, cells: Sequence[SweptPolicy]) -> dict[str, int]:
    """Tokens of the rows of policies: `tokens_in_cells`, all of them, and `distinct_tokens`, each prefix once."""
    completions: dict[tuple[int, int, int], set[bytes]] = {}
    in_cells = 0
    for cell in cells:
        table = read_cells(folder, [cell], ["problem_id", "sample_id", "completion_ids"])
        columns = (column.to_pylist() for column in table.columns)
        for problem_id, sample_id, ids in zip(*columns, strict=True):
            key = cell.seed, problem_id, sample_id
            completions.setdefault(key, set()).add(np.array(ids, dtype=np.int32).tobytes())
            in_cells += len(ids)
    return {"tokens_in_cells": in_cells, "distinct_tokens": sum(map(_distinct_prefixes, completions.values()))}


def _distinct_prefixes(completions: Iterable[bytes]) -> int:
    """The number of distinct prefixes of completions (int32 token ids as bytes), without the empty one."""
    ordered = [np.frombuffer(ids, dtype=np.int32) for ids in sorted(completions)]  # neighbours share the most
    shared = 0
    for first, second in pairwise(ordered):
        length = min(len(first), len(second))
        differ = np.flatnonzero(first[:length] != second[:length])
        shared += int(differ[0]) if len(differ) else length
    return sum(map(len, ordered)) - shared


def _rows(
    cell: SweptPolicy, responses: Sequence[CrossResponse], judge: Judge, tokenizer: PreTrainedTokenizerBase
) -> pa.Table:
    texts = tokenizer.batch_decode([response.completion_ids for response in responses], skip_special_tokens=True)
    verdicts = judged(judge, [response.problem_id for response in responses], texts)
    rows = []
    for response, (correct, reward) in zip(responses, verdicts, strict=True):
        positions = [position for position, switched in enumerate(response.switched) if switched]
        effective = response.effective
        rows.append(
            {
                **asdict(cell),
                "problem_id": response.problem_id,
                "sample_id": response.sample_id,
                "length": len(response.completion_ids),
                "correct": correct,
                "completion_ids": response.completion_ids,
                "positions": positions,
                "effective": [effective[position] for position in positions],
                "primary_ids": [response.primary_ids[position] for position in positions],
                "intervention_ids": [response.intervention_ids[position] for position in positions],
                "scores": [response.scores[position] for position in positions],
                "js": [response.js[position] for position in positions],
                "reward": reward,
                "disagreements": sum(response.disagreed),
            }
        )
    return pa.Table.from_pylist(rows, schema=SWEEP_SCHEMA)


def read_cells(folder: RunFolder, cells: Sequence[SweptPolicy], columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of policies, in their order.

    Args:
        folder: the folder of the run.
        cells: the policies whose rows are read.
        columns: their names; all when None.
    """
    names = None if columns is None else list(columns)
    return pa.concat_tables(
        [read_parquet(cell_file(folder, cell), columns=names, schema=SWEEP_SCHEMA) for cell in cells]
    )
