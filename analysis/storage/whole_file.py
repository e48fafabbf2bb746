"""Files that appear whole or not at all, after a crash of the machine too."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenshift.analysis.secrets import hide_in_text

CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
"""Errors of file systems that have no `fsync`."""


@contextmanager
def whole_file(path: Path, is_scratch: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to, renamed to `path` at the end; a run killed in between leaves the old file.

    The contents are on the disk before they have the name, so that after a loss of power either the old file is there
    or the new one, never an empty one. Missing folders are made. After an error the unfinished file is deleted, which
    gives a full disk its room back.

    Args:
        path: the file.
        is_scratch: whether the file is of no use after the run, and need not wait for the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        if not is_scratch:
            _keep_on_disk(partial)
        os.replace(partial, path)
    except Exception:
        partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, text: str) -> None:
    """Write a text file, UTF-8, that appears whole; access tokens and other secrets in it are hidden."""
    with whole_file(path) as partial:
        partial.write_text(hide_in_text(text), encoding="utf-8")


def _keep_on_disk(path: Path) -> None:
    """Wait until a file's contents are on the disk, where the file system can tell."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
    finally:
        os.close(opened)
