"""The checkpoints in a training's folder, and the newest of them that can be used.

What can be used depends on what for: a run goes on from a checkpoint whose files are as they were saved, and a reader
of logs needs a readable state alone. So the reader says it, and everything else is the same for all. Nothing of torch
or transformers is imported.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from tokenshift.analysis.storage.json_files import read_json

CHECKPOINT_PREFIX = "checkpoint"
"""Start of the name of a checkpoint's folder, as of transformers."""

TRAINER_STATE = "trainer_state.json"
"""The trainer's state in a checkpoint, as of transformers."""

LEFT_BEHIND_FILE = "left_behind.json"
"""Marks a checkpoint of more updates than the one that its run was told to go on from: the run has another course now,
which may end before it gets there."""

Candidates = Iterable[tuple[Path, str | None]]
"""Checkpoints, each with the reason why it is none of its run's course, or None where it is."""


def checkpoint_step(checkpoint: Path) -> int:
    """The number of updates in a checkpoint's name; -1 for a folder of another name."""
    match = re.fullmatch(rf"{CHECKPOINT_PREFIX}-(\d+)", checkpoint.name)
    return int(match[1]) if match else -1


def checkpoints_of(run_dir: Path) -> list[Path]:
    """The checkpoints in a run's folder, which need not exist, by their number of updates."""
    folders = run_dir.glob(f"{CHECKPOINT_PREFIX}-*") if run_dir.is_dir() else []
    return sorted((path for path in folders if path.is_dir() and checkpoint_step(path) >= 0), key=checkpoint_step)


def left_behind(checkpoint: Path) -> str | None:
    """Words for why a checkpoint is of a course that its run has left; None where it is not."""
    if not (checkpoint / LEFT_BEHIND_FILE).exists():
        return None
    try:
        origin = str(read_json(checkpoint / LEFT_BEHIND_FILE, dict)["went_on_from"])
    except (OSError, ValueError, KeyError):
        origin = "another one"
    return f"the run went on from {origin} later, and left it behind; name it to go on from it all the same"


def candidates_of(run_dir: Path) -> list[tuple[Path, str | None]]:
    """The checkpoints in a run's folder, newest first, each with what `left_behind` says of it."""
    return [(checkpoint, left_behind(checkpoint)) for checkpoint in reversed(checkpoints_of(run_dir))]


def newest_usable(
    candidates: Candidates, fault: Callable[[Path], str | None]
) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The first checkpoint that is of its run's course and has no fault.

    Args:
        candidates: Checkpoints, newest first, as of `candidates_of`.
        fault: Says why a checkpoint cannot be used, or None where it can; it is asked of no more than needed.

    Returns:
        The checkpoint, None where none can be used; and those that were passed over, each with the reason.
    """
    passed_over: list[tuple[Path, str]] = []
    for checkpoint, reason in candidates:
        reason = reason or fault(checkpoint)
        if reason is None:
            return checkpoint, passed_over
        passed_over.append((checkpoint, reason))
    return None, passed_over
