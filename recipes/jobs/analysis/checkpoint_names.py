"""The checkpoints that an analysis over checkpoints names; nothing heavy is imported."""

from collections import Counter
from glob import glob
from pathlib import Path

from tokenshift.analysis.shift.checkpoint_steps import step_of
from tokenshift.analysis.storage.user_paths import user_path


def checkpoint_names(checkpoints: list[str]) -> list[str]:
    """Names of the checkpoints; globs are replaced by the folders that they find.

    Args:
        checkpoints: folders, globs, or hub names with revisions.

    Raises:
        ValueError: if a glob finds nothing, or a checkpoint comes twice.
    """
    names: list[str] = []
    for name in checkpoints:
        if not any(sign in name for sign in "*?[") or user_path(name, "checkpoints").is_dir():
            names.append(name)
            continue
        folders = [path for path in glob(str(user_path(name, "checkpoints"))) if Path(path).is_dir()]
        if not folders:
            raise ValueError(f"checkpoints={name!r} finds no folder.")
        names += sorted(folders, key=_step_and_name)
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise ValueError(f"checkpoints names {doubled[0]!r} twice.")
    return names


def _step_and_name(name: str) -> tuple[int, str]:
    step = step_of(name)
    return (-1 if step is None else step), name
