"""Checks for free space before a run, and names the reason when a disk fails in the middle of one."""

import errno
import os
import re
import shutil
from pathlib import Path

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
"""Errors of a write that say that the disk, and not the program, is at fault."""

SCORED_TOKEN_BYTES = 150
"""Bytes of a token in a per-token table or a probe, about; measured 75 to 130."""

SAMPLED_TOKEN_BYTES = 20
"""Bytes of a token in a table of responses, with its text, about."""

_REASONS = {
    **{os.strerror(number).lower(): os.strerror(number) for number in DISK_ERRORS},
    **{f"os error {number})": os.strerror(number) for number in DISK_ERRORS},
}
"""Words of libraries' own errors -> the reason."""

_TORCH_WRITER = re.compile(r"inline_container\.cc|PytorchStreamWriter|Tried to write|basic_ios::clear|iostream error")
"""Words of PyTorch's errors for a file that could not be written, which name no reason."""


class DiskFullError(ValueError):
    """There is too little room for what a run will write; the message is one line with both numbers."""


class DiskFaultError(OSError):
    """A write failed for lack of space or for a disk that cannot be written; the message is one line."""


def disk_fault(error: BaseException) -> str | None:
    """The reason why the disk is at fault for an error; None where it is not.

    Args:
        error: what a library raised, such as OSError, safetensors' SafetensorError or PyTorch's RuntimeError; the
            errors that it came from are looked at too.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in DISK_ERRORS:
            file = f": {seen.filename}" if seen.filename else ""
            return f"{os.strerror(seen.errno)}{file}"
        text = str(seen).lower()
        for words, reason in _REASONS.items():
            if words in text:
                return reason
        if isinstance(seen, RuntimeError) and _TORCH_WRITER.search(str(seen)):
            return "a file could not be written whole"
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


def free_bytes(folder: Path) -> int:
    """The bytes that this user can still write to the disk of a folder, which need not exist yet."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def folder_bytes(folder: Path) -> int:
    """The bytes of all files in a folder and below; of a file, its own."""
    paths = folder.rglob("*") if folder.is_dir() else [folder]
    return sum(path.stat().st_size for path in paths if path.is_file())


def tables_bytes(sampled: int, scored: int) -> int:
    """Bytes of the tables of an analysis, about, at the moment when they take the most: in units of work, and joined.

    Args:
        sampled, scored: tokens that it samples, and that it scores.
    """
    return sampled * SAMPLED_TOKEN_BYTES + 2 * scored * SCORED_TOKEN_BYTES


def check_room(
    folder: Path, needed: int, parts: str, where: str, advice: str, *, freed: int = 0, at_most: int = 0
) -> str | None:
    """Refuse a run for whose files there is too little room.

    Args:
        folder: where they will be; it need not exist.
        needed: bytes that the run writes in any case, about.
        parts: what is written, for the message.
        where: the setting that names the folder, for the message.
        advice: what to do, for the message.
        freed: bytes that will be deleted from the disk first.
        at_most: bytes that the run writes besides if every response is as long as it may be.

    Returns:
        A line that warns where there may be too little room; None where there is enough in any case.

    Raises:
        DiskFullError: if there is too little room for `needed`.
    """
    free = free_bytes(folder) + freed
    if needed + at_most <= free:
        return None
    amount = f"about {as_bytes(needed)}" if needed > free else f"up to {as_bytes(needed + at_most)}"
    line = (
        f"{where} has {as_bytes(free)} free, but the run writes {amount} ({parts}). Free space on that disk, "
        f"{advice}, or choose another folder."
    )
    if needed > free:
        raise DiskFullError(line)
    return line


def as_bytes(number: float) -> str:
    """A number of bytes as text with three digits, such as `1.25 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
