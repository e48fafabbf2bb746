"""A lock on an output folder: two runs never write into the same folder, and a refused run learns who holds it."""

import json
import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from tokenshift.analysis.storage.whole_file import write_whole

LOCK_FILE = ".lock"
HOLDER_FILE = "_lock_holder.json"
"""Names the process that holds the lock; the underscore keeps the file out of a push to the hub."""


class FolderLock:
    """A folder that is held until `release`, the end of this object, or the death of the process.

    The operating system releases the lock of a process that dies, so that a killed run never blocks a folder.

    Args:
        folder: The folder; it is made if it is not there.
        kind: What kind of run takes the folder, in a word such as `training`.
        where: The setting that names the folder, for messages, such as `output_dir='outputs/mine'`.

    Raises:
        ValueError: If another run holds the folder (its host and process id are named), or if the folder cannot be
            written.
    """

    def __init__(self, folder: Path, kind: str, where: str) -> None:
        self._holder_file = folder / HOLDER_FILE
        self._process = os.getpid()
        self._lock = FileLock(folder / LOCK_FILE, thread_local=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
            holder = {"kind": kind, "host": socket.gethostname(), "process": self._process}
            write_whole(self._holder_file, json.dumps(holder) + "\n")
        except Timeout:
            raise ValueError(_in_use(self._holder_file, kind, where)) from None
        except OSError as error:
            self._lock.release()
            raise ValueError(f"{where} cannot be written: {error.strerror}.") from error

    def release(self) -> None:
        """Let other runs use the folder; a second call does nothing."""
        if self._lock.is_locked and os.getpid() == self._process:
            self._holder_file.unlink(missing_ok=True)
            self._lock.release()

    def __del__(self) -> None:
        if hasattr(self, "_lock"):
            self.release()


def _in_use(holder_file: Path, kind: str, where: str) -> str:
    """The message for a folder that another run holds."""
    advice = "wait until it ends, or choose another --output_dir."
    try:
        holder = json.loads(holder_file.read_text(encoding="utf-8"))
        held_by, process = str(holder["kind"]), f"process {holder['process']} on the host {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # taken by an older version, or in this very moment
        return f"{where} is in use by another {kind}; {advice}"
    article = "another" if held_by == kind else "an" if held_by[0] in "aeiouS" else "a"
    return f"{where} is in use by {article} {held_by}, {process}; {advice}"
