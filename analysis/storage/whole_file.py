"""Files that appear whole or not at all, after a crash of the machine too."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenshift.analysis.secrets import hide_in_text

CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EISDIR)
"""Errors of file systems that keep no file or folder by `fsync`."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, renamed to `path` at the end; a run killed in between leaves the old file.

    The contents are on the disk before the new name is, so that after a loss of power either the old file is there or
    the new one, never an empty one. Missing folders are made. After an error the unfinished file is deleted, which
    gives a full disk its room back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        keep_on_disk(partial)
        os.replace(partial, path)
    except Exception:
        partial.unlink(missing_ok=True)
        raise
    keep_on_disk(path.parent)


def write_whole(path: Path, text: str) -> None:
    """Write a text file, UTF-8, that appears whole; access tokens and other secrets in it are hidden."""
    with whole_file(path) as partial:
        partial.write_text(hide_in_text(text), encoding="utf-8")


def keep_on_disk(path: Path) -> None:
    """Wait until a file's contents, or the names in a folder, are on the disk; where it cannot be told, do not."""
    try:
        opened = os.open(path, os.O_RDONLY)
    except OSError as error:
        if error.errno in CANNOT_SYNC:  # a folder, on Windows
            return
        raise
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
    finally:
        os.close(opened)
