"""Long work in units, each a file that appears whole: processes share it, and a stopped run goes on where it was."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
from accelerate import PartialState
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tokenshift.analysis.storage.parquet_files import read_parquet, write_parquet


def run_units(
    files: Sequence[Path],
    work: Callable[[int, Path], int],
    description: str,
    *,
    state: PartialState | None = None,
    noun: str = "tokens",
) -> None:
    """Do the units whose files are not there yet; every process must call it, and all return together.

    The contents of a unit must not depend on which others are done, nor on the number of processes: then files are
    the same however often the work was stopped.

    Args:
        files: one file per unit; unit i belongs to process i modulo the number of processes.
        work: makes unit i, writes it whole to its file, and returns how much it did, in `noun`s.
        description: label of the progress bar, which the main process shows: units of all processes, its own rate.
        state: the processes that share the work.
        noun: the unit of the rate.
    """
    state = state or PartialState()
    mine = range(state.process_index, len(files), state.num_processes)
    left = [unit for unit in mine if not files[unit].exists()]
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        disable=not state.is_main_process,
    )
    with progress:
        task = progress.add_task(description, total=len(files), completed=_done(files), rate="")
        started, amount = time.monotonic(), 0
        for unit in left:
            amount += work(unit, files[unit])
            rate = amount / max(time.monotonic() - started, 1e-9) * state.num_processes
            said = f"{rate:,.0f} {noun}/s" if amount else ""  # units may need nothing that was not there
            progress.update(task, completed=_done(files), rate=said)
        state.wait_for_everyone()
        progress.update(task, completed=len(files))


def join_rows(units: Sequence[Path], file: Path, schema: pa.Schema) -> None:
    """Write the rows of units to one Parquet file, by problem and sample.

    Args:
        units: Parquet files.
        file: appears whole.
        schema: the columns of all units, with the metadata of the file.
    """
    table = pa.concat_tables([read_parquet(unit, schema=schema.remove_metadata()) for unit in units])
    table = table.sort_by([("problem_id", "ascending"), ("sample_id", "ascending")])
    write_parquet(file, table.cast(schema), compression="zstd")


def _done(files: Sequence[Path]) -> int:
    """The number of files that exist, by one look at each folder: other processes write there too."""
    existing = {path for folder in {file.parent for file in files} if folder.is_dir() for path in folder.iterdir()}
    return sum(file in existing for file in files)
