"""Manifests: the files that a folder had when it was saved, so that damage is seen before one of them is used."""

import json
import mmap
from io import FileIO
from pathlib import Path
from typing import Any

import xxhash

from tokenshift.analysis.storage.json_files import read_json
from tokenshift.analysis.storage.whole_file import write_whole

MANIFEST_FILE = "manifest.json"

WHOLE_BYTES = 64 * 2**20
"""Largest file that is hashed whole; of larger ones, blocks are."""

BLOCKS, BLOCK_BYTES = 1024, 16 * 2**10
"""Number and size of the blocks of a larger file, evenly spread from its first byte to its last."""


def file_hash(path: Path, just_written: bool = False) -> str:
    """XXH3 of a file's contents, as hexadecimal digits: whole up to `WHOLE_BYTES`, else of `BLOCKS` blocks.

    The hash finds damage; it is no protection against somebody who changes both the file and the manifest.

    Args:
        path: a file that nobody is writing.
        just_written: whether its contents are in memory still, so that they can be mapped; a disk that cannot read a
            mapped file would kill the process.
    """
    digest = xxhash.xxh3_128()
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        if size > WHOLE_BYTES:
            block = bytearray(BLOCK_BYTES)
            for index in range(BLOCKS):
                file.seek(index * (size - BLOCK_BYTES) // (BLOCKS - 1))
                file.readinto(block)
                digest.update(block)
        elif size and just_written:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:  # without a copy
                digest.update(content)
        else:
            update_from(digest, file, size)
    return digest.hexdigest()


def update_from(digest: xxhash.xxh3_128, file: FileIO, length: int) -> None:
    """Add the next `length` bytes of an unbuffered file, or as many as there are, to a hash."""
    buffer = memoryview(bytearray(min(length, 2**20)))
    while length and (count := file.readinto(buffer[:length])):
        digest.update(buffer[:count])
        length -= count


def write_manifest(folder: Path) -> None:
    """Write the folder's `manifest.json`: size and hash of every file in it and below."""
    files = {
        path.relative_to(folder).as_posix(): {
            "size": path.stat().st_size,
            "xxh3_128": file_hash(path, just_written=True),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST_FILE
    }
    write_whole(folder / MANIFEST_FILE, json.dumps({"version": 1, "files": files}, indent=1) + "\n")


def manifest_fault(folder: Path) -> str | None:
    """The first difference between a folder and its manifest, for a message; None where there is none.

    Files that the manifest does not name are left out of account.

    Args:
        folder: a folder with a manifest.
    """
    try:
        manifest = read_json(folder / MANIFEST_FILE)
        files: list[tuple[str, Any, Any]] = [
            (name, entry["size"], entry["xxh3_128"]) for name, entry in manifest["files"].items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST_FILE} is damaged"
    if not files:
        return f"{MANIFEST_FILE} names no file"
    for name, size, saved in files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"{MANIFEST_FILE} names a file of another folder"
        try:
            now = (folder / name).stat().st_size
            if now != size:
                return f"{name} has {now} bytes, but {size} were saved"
            if file_hash(folder / name) != saved:
                return f"{name} does not have the contents that were saved"
        except FileNotFoundError:
            return f"{name} is missing"
        except (OSError, ValueError) as error:
            return f"{name} cannot be read: {error}"
    return None
