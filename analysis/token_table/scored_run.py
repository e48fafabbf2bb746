"""From two models to a per-token table on disk: responses, then both models' statistics along them.

Under a folder: `trajectories/{kind}.parquet`, `table/part-00000-of-00002.parquet` (a file a process), `explorer.npz`.
Work is cut into units whose contents depend on the settings alone, so that a run that was stopped, or that had another
number of processes, ends in the same rows, bit for bit on one kind of machine.
"""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from accelerate import PartialState

from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.storage.provenance import table_metadata
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import whole_file
from tokenshift.analysis.storage.work_units import run_units
from tokenshift.analysis.token_table.explored import explored_keys, explored_responses
from tokenshift.analysis.token_table.schema import write_table
from tokenshift.analysis.token_table.scoring import PairScorer, scoring_batches


def score_to_table(
    folder: RunFolder,
    trajectories: Mapping[str, Sequence[Trajectory]],
    scorer: Callable[[], PairScorer],
    metadata: Mapping[str, Any],
    *,
    batch_tokens: int,
    explored: int = 0,
    state: PartialState | None = None,
) -> None:
    """Write the per-token table, and the most probable tokens of some responses; nothing where they are there.

    Args:
        folder: of the run.
        trajectories: by kind.
        scorer: makes both models ready; called only if there is something left to score.
        metadata: of the table.
        batch_tokens: tokens in a forward pass, padding included.
        explored: responses whose most probable tokens are kept, chosen by `explored_responses`.
    """
    state = state or PartialState()
    ready: list[PairScorer] = []

    def models() -> PairScorer:
        if not ready:
            ready.append(scorer())
        return ready[0]

    if not is_scored(folder):
        batches = [
            (kind, [own[place] for place in places])
            for kind, own in trajectories.items()
            for places in scoring_batches(own, batch_tokens)
        ]
        files = [folder.units("table") / f"{unit:06d}.parquet" for unit in range(len(batches))]

        def work(unit: int, file: Path) -> int:
            kind, own = batches[unit]
            table = models().table(own, kind)
            write_table(file, table, {})
            return table.num_rows

        run_units(files, work, "scoring", state=state)
        empty = sum(not each.completion_ids for own in trajectories.values() for each in own)
        _merge(folder, files, {**metadata, "empty_responses": empty}, state)
    chosen = explored_responses(trajectories, explored)
    if chosen and explored_keys(folder) != {(kind, each.problem_id, each.sample_id) for kind, each in chosen}:
        files = [folder.units("explorer") / f"{place:06d}.npz" for place in range(len(chosen))]

        def explore(place: int, file: Path) -> int:
            _kind, trajectory = chosen[place]
            ids, logps = models().top_tokens(trajectory)
            with whole_file(file) as partial, partial.open("wb") as out:
                np.savez_compressed(out, ids=ids, logps=logps)
            return len(trajectory.completion_ids)

        run_units(files, explore, "most probable tokens", state=state)
        if state.is_main_process:
            arrays: dict[str, np.ndarray] = {}
            for (kind, each), file in zip(chosen, files, strict=True):
                with np.load(file) as found:
                    for name in ("ids", "logps"):
                        arrays[f"{kind}/{each.problem_id}/{each.sample_id}/{name}"] = found[name]
            with whole_file(folder.explorer) as partial, partial.open("wb") as out:
                np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
            shutil.rmtree(folder.units("explorer"), ignore_errors=True)
        state.wait_for_everyone()
    if state.is_main_process and folder.units("").is_dir() and not any(folder.units("").iterdir()):
        folder.units("").rmdir()


def is_scored(folder: RunFolder) -> bool:
    """Whether the table is complete: a file of each process that wrote it."""
    parts = [re.fullmatch(r"part-(\d+)-of-(\d+)\.parquet", path.name) for path in folder.table.glob("part-*.parquet")]
    there = {(int(part[1]), int(part[2])) for part in parts if part}
    sizes = {size for _, size in there}
    whole = len(sizes) == 1 and there == {(rank, size) for size in sizes for rank in range(size)}
    return whole and not folder.units("table").exists()


def _merge(folder: RunFolder, files: Sequence[Path], metadata: Mapping[str, Any], state: PartialState) -> None:
    """Join the units of each process to a file of its own, a row group a unit."""
    rank, size = state.process_index, state.num_processes
    if state.is_main_process:
        for stale in folder.table.glob("part-*.parquet"):
            stale.unlink()
    state.wait_for_everyone()
    own = [pq.read_schema(file) for file in files[rank : rank + 1]]
    if own:
        schema = own[0].with_metadata(table_metadata(metadata))
        with (
            whole_file(folder.table / f"part-{rank:05d}-of-{size:05d}.parquet") as partial,
            pq.ParquetWriter(partial, schema, compression="zstd") as writer,
        ):
            for file in files[rank::size]:
                writer.write_table(pq.read_table(file).replace_schema_metadata(schema.metadata))
    state.wait_for_everyone()
    if state.is_main_process:  # renamed first: a half-deleted folder would be scored again
        done = folder.units("done")
        shutil.rmtree(done, ignore_errors=True)
        folder.units("table").rename(done)
        shutil.rmtree(done)
    state.wait_for_everyone()
