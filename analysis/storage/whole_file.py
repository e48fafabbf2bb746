"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenshift.analysis.secrets import hide_in_text


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, renamed to `path` at the end; a run killed in between leaves the old file.

    Missing folders are made. After an error the unfinished file is deleted, which gives a full disk its room back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except Exception:
        partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, text: str) -> None:
    """Write a text file, UTF-8, that appears whole; access tokens and other secrets in it are hidden."""
    with whole_file(path) as partial:
        partial.write_text(hide_in_text(text), encoding="utf-8")
