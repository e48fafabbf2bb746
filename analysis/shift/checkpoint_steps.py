"""Reads the number of updates from checkpoints' names, and shortens the names to labels; nothing heavy is imported."""

import re
from collections.abc import Sequence
from pathlib import PurePath


def step_of(name: str) -> int | None:
    """The update that a checkpoint's name tells, the last number in it; None without one.

    Args:
        name: a folder, or a hub name with its revision (`name@revision`).
    """
    numbers = re.findall(r"\d+", PurePath(name).name.rpartition("@")[2])
    return int(numbers[-1]) if numbers else None


def checkpoint_labels(names: Sequence[str]) -> list[str]:
    """The names without their folders, where that still tells them apart; else the names as they are."""
    tails = [PurePath(name).name for name in names]
    return tails if len(set(tails)) == len(tails) else list(names)
