"""Parquet files that are whole: each is sealed with a hash of its contents, which is compared when it is read.

Parquet finds its footer from the end of the file, and its pages by offsets from the beginning, so that the seal lies
between the two, where no reader looks: a sealed file is an ordinary Parquet file. Files of earlier versions, and of
other programs, have no seal; they are read as far as Parquet itself can tell that they are whole.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from tokenshift.analysis.storage.damage import DamagedFileError
from tokenshift.analysis.storage.manifest import update_from
from tokenshift.analysis.storage.whole_file import whole_file

SEAL = b"tokenshift:xxh3:"
"""The first bytes of a seal; the 16 bytes of the hash of all other bytes of the file follow."""

SEAL_BYTES = len(SEAL) + 16
TRAILER_BYTES = 8
"""Parquet's last bytes: the length of the footer, and a word."""

FAULTS = (pa.ArrowException, OSError, UnicodeDecodeError)
"""Errors that reading a damaged Parquet file can raise."""


def write_parquet(path: Path, table: pa.Table, **options: Any) -> None:
    """Write a Parquet file that appears whole and sealed.

    Args:
        path: the file; missing folders are made.
        table: its rows.
        options: as for `pyarrow.parquet.write_table`.
    """
    with sealed_parquet(path) as partial:
        pq.write_table(table, partial, **options)


@contextmanager
def sealed_parquet(path: Path) -> Iterator[Path]:
    """A path to write a Parquet file to, which is sealed and becomes `path` at the end."""
    with whole_file(path) as partial:
        yield partial
        _seal(partial)


def _seal(path: Path) -> None:
    with path.open("r+b", buffering=0) as file:
        start = _footer_start(file)
        file.seek(start)
        footer = file.read()
        digest = _digest(file, start, footer)
        file.seek(start)
        for part in (SEAL + digest, footer):
            rest = memoryview(part)
            while rest:  # an unbuffered write may take a part
                rest = rest[file.write(rest) :]


def _footer_start(file: FileIO) -> int:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - TRAILER_BYTES))
    return size - TRAILER_BYTES - int.from_bytes(file.read(4), "little")


def _digest(file: FileIO, length: int, footer: bytes) -> bytes:
    """The hash of the first `length` bytes of the file, and of its footer."""
    digest = xxhash.xxh3_128()
    file.seek(0)
    update_from(digest, file, length)
    digest.update(footer)
    return digest.digest()


def is_whole_parquet(path: Path) -> bool:
    """Whether a Parquet file is what was written: by its seal, or by its footer alone if it has none."""
    try:
        with path.open("rb", buffering=0) as file:
            start = _footer_start(file) - SEAL_BYTES
            if start > 0:
                file.seek(start)
                seal, footer = file.read(SEAL_BYTES), file.read()
                if seal.startswith(SEAL):
                    return seal == SEAL + _digest(file, start, footer)
        pq.read_schema(path)
    except FAULTS:
        return False
    return True


@lru_cache(maxsize=4096)
def _is_whole(path: Path, _modified: int, _size: int) -> bool:
    """`is_whole_parquet`, once for each state of a file."""
    return is_whole_parquet(path)


def check_parquet(path: Path) -> None:
    """Refuse a Parquet file that is not what was written.

    Raises:
        DamagedFileError: if it is not.
        FileNotFoundError: if it is not there.
    """
    stat = path.stat()
    if not _is_whole(path.absolute(), stat.st_mtime_ns, stat.st_size):
        raise damaged(path)


def damaged(path: Path, reason: str | None = None) -> DamagedFileError:
    """The error for a Parquet file that is not what was written."""
    return DamagedFileError(
        f"{path} is not a whole Parquet file: {reason or 'its contents are not those that were written'}. Bring it "
        "back from a copy, or delete it and make it again."
    )


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file that is whole.

    Raises:
        DamagedFileError: if it is not.
    """
    check_parquet(path)
    try:
        return pq.ParquetFile(path)
    except FAULTS as error:
        raise damaged(path, str(error).splitlines()[0]) from error


def read_parquet(path: Path, columns: Sequence[str] | None = None, schema: pa.Schema | None = None) -> pa.Table:
    """Read a Parquet file, or all those of a folder, that are whole.

    Args:
        path: the file or the folder.
        columns: names of the columns to read; all when None.
        schema: the columns' types; the file's when None.

    Raises:
        DamagedFileError: if a file is not whole.
    """
    for file in sorted(path.glob("*.parquet")) if path.is_dir() else [path]:
        check_parquet(file)
    try:
        return pq.read_table(path, columns=None if columns is None else list(columns), schema=schema)
    except FAULTS as error:
        if "FieldRef" in str(error):  # a column that the file never had
            raise
        raise damaged(path, str(error).splitlines()[0]) from error
