"""The settings in a checkpoint's `training_args.bin`, read without torch, and without running anything of it.

The file is a pickle in a ZIP archive. A pickle can run anything while it is read, so no name in it is imported: every
class and function that it names is replaced by `_Stub`, which keeps what it is given.
"""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

MOST_PARTS = 100_000
"""Parts of all settings that are looked at."""

DEEPEST = 20
"""Levels of a setting."""


class _Stub:
    """Stands for an object of any class."""

    values: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *values: Any) -> None:
        self.values = values  # an enum's is its value

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _StubbingUnpickler(pickle.Unpickler):
    """Replaces all that a pickle names by stubs; what `BUILD` sets on them is not on a class of the program's."""

    def find_class(self, module: str, name: str) -> Any:
        return _Stub

    def persistent_load(self, pid: Any) -> Any:
        return None  # a tensor's storage


def read_settings(file: Path) -> dict[str, Any]:
    """The fields of a training's config that are numbers, texts, truth values, None, or lists and dicts of these.

    Args:
        file: a checkpoint's `training_args.bin`.

    Returns:
        The fields by name; empty if the file cannot be read.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            state = _StubbingUnpickler(io.BytesIO(archive.read(name))).load().state
    except Exception:  # whatever a file that is damaged, or another's, makes of it
        return {}
    if not isinstance(state, dict):
        return {}
    left = [MOST_PARTS]
    return {
        key: _plain(value) for key, value in state.items() if isinstance(key, str) and _is_plain(_plain(value), left)
    }


def _plain(value: Any) -> Any:
    """An enum's member as its value; anything else as it is."""
    if isinstance(value, _Stub) and len(value.values) == 1 and isinstance(value.values[0], str):
        return value.values[0]
    return value


def _is_plain(value: Any, left: list[int], depth: int = 0) -> bool:
    """Whether a value is plain; one that is nested deeply, or in itself, or has parts beyond those left, is not."""
    left[0] -= 1
    if left[0] < 0 or depth > DEEPEST:
        return False
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return all(_is_plain(part, left, depth + 1) for part in value)
    return value is None or isinstance(value, bool | int | float | str)
