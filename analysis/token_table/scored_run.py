"""From trajectories to a per-token table on disk: both models' statistics along them.

A run's folder gets `table/part-00000-of-00002.parquet` (one file per process) and `explorer.npz`. Work is cut into
units whose contents depend on the settings alone, so that a run that was stopped, or that had another number of
processes, ends in the same rows, bit for bit on one kind of machine.
"""

import functools
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from accelerate import PartialState

from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.storage.parquet_files import read_parquet, sealed_parquet
from tokenshift.analysis.storage.provenance import table_metadata
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.work_units import run_units
from tokenshift.analysis.token_table.explored import explored_responses, unexplored, write_explored
from tokenshift.analysis.token_table.one_at_a_time import OneAtATime
from tokenshift.analysis.token_table.schema import write_table
from tokenshift.analysis.token_table.scoring import Scorer, scoring_batches

STATES = "states"
"""Name of the units of a model's hidden states, which wait there for another model."""


def score_to_table(
    folder: RunFolder,
    trajectories: Mapping[str, Sequence[Trajectory]],
    scorer: Callable[[], Scorer] | OneAtATime,
    metadata: Mapping[str, Any],
    *,
    batch_tokens: int,
    explored: int = 0,
    state: PartialState | None = None,
) -> None:
    """Write the per-token table and the most probable tokens of some responses; what is there already stays.

    Every process must call it.

    Args:
        folder: the run's folder.
        trajectories: the responses, by kind.
        scorer: makes both models ready, or one after the other; called only if there is something left to score.
        metadata: what the table's rows come from, for its schema.
        batch_tokens: tokens in a forward pass, padding included.
        explored: how many responses, chosen by `explored_responses`, keep their most probable tokens.
        state: the processes that share the work.
    """
    state = state or PartialState()
    ready = functools.cache(lambda: scorer())
    scored = is_scored(folder)
    batches = [
        (kind, [of_kind[index] for index in indices])
        for kind, of_kind in trajectories.items()
        for indices in scoring_batches(of_kind, batch_tokens)
    ]
    files = [folder.units("table") / f"{unit:06d}.parquet" for unit in range(len(batches))]
    chosen = explored_responses(trajectories, explored)
    if isinstance(scorer, OneAtATime):
        left = [batch for file, (_, batch) in zip(files, batches, strict=True) if not (scored or file.exists())]
        scorer.spill([*left, *([trajectory] for trajectory in unexplored(folder, chosen))], state)
    if not scored:

        def work(unit: int, file: Path) -> int:
            kind, batch = batches[unit]
            table = ready().table(batch, kind)
            write_table(file, table, {})
            return table.num_rows

        run_units(files, work, "scoring", state=state)
        responses = [trajectory for of_kind in trajectories.values() for trajectory in of_kind]
        empty = sum(not trajectory.completion_ids for trajectory in responses)
        _merge(folder, files, {**metadata, "empty_responses": empty}, state)
    write_explored(folder, chosen, lambda trajectory: ready().top_tokens(trajectory), state)
    if state.is_main_process:
        folder.discard(STATES)


def is_scored(folder: RunFolder) -> bool:
    """Whether the table is complete: every process that wrote it left its file."""
    parts = [re.fullmatch(r"part-(\d+)-of-(\d+)\.parquet", path.name) for path in folder.table.glob("part-*.parquet")]
    written = {(int(part[1]), int(part[2])) for part in parts if part}
    sizes = {size for _, size in written}
    whole = len(sizes) == 1 and written == {(rank, size) for size in sizes for rank in range(size)}
    return whole and not folder.units("table").exists()


def _merge(folder: RunFolder, files: Sequence[Path], metadata: Mapping[str, Any], state: PartialState) -> None:
    """Join the units of each process in one file, one row group per unit."""
    rank, size = state.process_index, state.num_processes
    if state.is_main_process:
        for stale in folder.table.glob("part-*.parquet"):
            stale.unlink()
    state.wait_for_everyone()
    if rank < len(files):
        schema = pq.read_schema(files[rank]).with_metadata(table_metadata(metadata))
        with (
            sealed_parquet(folder.table / f"part-{rank:05d}-of-{size:05d}.parquet") as partial,
            pq.ParquetWriter(partial, schema, compression="zstd") as writer,
        ):
            for file in files[rank::size]:
                writer.write_table(read_parquet(file).replace_schema_metadata(schema.metadata))
    state.wait_for_everyone()
    if state.is_main_process:  # renamed first: a half-deleted folder would be scored again
        done = folder.units("done")
        shutil.rmtree(done, ignore_errors=True)
        folder.units("table").rename(done)
        shutil.rmtree(done)
    state.wait_for_everyone()
