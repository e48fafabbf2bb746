"""Pickles, which can run anything while they are read: files that hold more than numbers are refused, and not read."""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_pt_utils import safe_globals

PICKLES = ("*.pt", "*.pth", "*.bin")
"""Patterns of the pickles in a checkpoint."""

NEVER_READ = ("training_args.bin",)
"""Pickles that are written for people, and that nothing reads."""


def check_pickle(file: Path) -> None:
    """Look whether torch's `weights_only` loader takes a file; nothing in it is run, and tensors are not read.

    Args:
        file: a file that `torch.save` wrote.

    Raises:
        ValueError: if the file holds more than tensors, numbers and their containers, or is damaged.
    """
    mapped: dict[str, Any] = {"mmap": True} if zipfile.is_zipfile(file) else {}
    try:
        with safe_globals(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's protocol
            torch.load(file, map_location="meta", weights_only=True, **mapped)
    except pickle.UnpicklingError as error:
        unsafe = _unsafe_names(file) if mapped else []
        what = (
            f"names {unsafe[0]}, which is no part of weights" if unsafe else "holds more than weights, or is damaged"
        )
        raise ValueError(
            f"{file.name} is a pickle that {what}, and is not read: it could run anything; take the file from where "
            "you trust it, as safetensors if it holds weights."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, TypeError, AttributeError, IndexError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{file.name} is damaged ({reason}); copy it anew.") from error


def check_checkpoint(folder: Path) -> None:
    """Look at the pickles of a checkpoint, as `check_pickle` does.

    Raises:
        ValueError: for the first one that is refused, with the folder's name.
    """
    for file in sorted(file for pattern in PICKLES for file in folder.glob(pattern)):
        if file.name in NEVER_READ:
            continue
        try:
            check_pickle(file)
        except ValueError as error:
            raise ValueError(f"The checkpoint {str(folder)!r} cannot be resumed from: {error}") from error


def _unsafe_names(file: Path) -> list[str]:
    """Dotted names that a pickle uses and that weights do not need, or none where the file does not tell."""
    try:
        return list(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:  # a file made to confuse the scanner too
        return []
