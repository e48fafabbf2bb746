"""A lock on an output folder: two runs never write into the same folder, and a refused run learns who holds it."""

import errno
import json
import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, SoftFileLock, Timeout

from tokenshift.analysis.storage.json_files import read_json
from tokenshift.analysis.storage.whole_file import write_whole

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
HOLDER_FILE = "_lock_holder.json"
"""Names the process that holds the lock; the underscore keeps the file out of a push to the hub."""

MARKER_FILE = ".lock_marker"
"""Its existence is the lock on file systems that cannot lock a file."""

LOCK_FILES = (LOCK_FILE, HOLDER_FILE, MARKER_FILE)
"""Every file that a lock leaves in its folder."""

BEAT_SECONDS, WATCH_SECONDS = 10.0, 25.0
"""Seconds between the holder's touches of `HOLDER_FILE`, and until another host's file counts as left."""

SAME_START = 2.0
"""Seconds by which two readings of when a process began may differ, since clocks are set meanwhile."""

CANNOT_LOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""Errors of file systems that cannot lock a file."""

_locks: weakref.WeakValueDictionary[str, "FolderLock"] = weakref.WeakValueDictionary()
"""The locks that this process holds: resolved folder -> lock."""


class FolderLock:
    """A folder that is held until `release`, the end of this object, or the death of the process.

    The operating system releases the lock of a process that dies, so that a killed run never blocks a folder. On
    shared file systems whose locks do not reach from host to host, the holder is known by a file that it touches every
    10 seconds: a run on another host watches that file for 25 seconds before it takes the folder. The same file tells
    of the holder where somebody deletes the lock file; the holder writes it anew where that one is deleted too.

    Args:
        folder: The folder; it is made if it is not there.
        kind: What kind of run takes the folder, in a word such as `training`.
        where: The setting that names the folder, for messages, such as `output_dir='outputs/mine'`.

    Attributes:
        is_borrowed: Whether a training of this process uses the folder under this lock.

    Raises:
        ValueError: If another run holds the folder (its host and process id are named), or if the folder cannot be
            written.
    """

    def __init__(self, folder: Path, kind: str, where: str) -> None:
        self._holder_file = folder / HOLDER_FILE
        self._process = os.getpid()
        self._lock: FileLock | SoftFileLock = FileLock(folder / LOCK_FILE, thread_local=False)
        self._ended, self._guard = threading.Event(), threading.RLock()
        self._key = _key(folder)
        self.is_borrowed = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._acquire(folder)
            others = _is_another_hosts(self._holder_file) and _is_touched(self._holder_file)
            if others or _lives_here(
                self._holder_file
            ):  # the lock file was deleted, or does not reach from host to host
                self._lock.release()
                raise Timeout(str(self._holder_file))
            started = psutil.Process().create_time()
            holder = {"kind": kind, "host": socket.gethostname(), "process": self._process, "started": started}
            write_whole(self._holder_file, json.dumps(holder) + "\n")
        except Timeout:
            raise ValueError(_in_use(self._holder_file, kind, where)) from None
        except OSError as error:
            self._lock.release()
            raise ValueError(f"{where} cannot be written: {error.strerror}.") from error
        _locks[self._key] = self
        beats = (self._holder_file, self._ended, self._guard, holder)
        threading.Thread(target=_touch, args=beats, daemon=True).start()

    def _acquire(self, folder: Path) -> None:
        """Lock the lock file, or make the marker where files cannot be locked.

        Raises:
            Timeout: If another run holds the folder.
        """
        try:
            self._lock.acquire(blocking=False)
        except OSError as error:
            if error.errno not in CANNOT_LOCK:
                raise
            if _is_another_hosts(self._holder_file) and not _is_touched(self._holder_file):
                (folder / MARKER_FILE).unlink(missing_ok=True)  # its host or its process is gone
            self._lock = SoftFileLock(folder / MARKER_FILE, thread_local=False)
            self._lock.acquire(blocking=False)

    def release(self) -> None:
        """Let other runs use the folder; a second call does nothing."""
        if self._lock.is_locked and os.getpid() == self._process:
            self._ended.set()
            if _locks.get(self._key) is self:
                del _locks[self._key]
            with self._guard:  # the other thread would write it anew
                if not _is_another_hosts(self._holder_file) and not _lives_here(self._holder_file):
                    self._holder_file.unlink(missing_ok=True)
            self._lock.release()

    def __del__(self) -> None:
        if hasattr(self, "_lock"):
            self.release()


def borrow_folder(folder: Path, kind: str, where: str) -> Callable[[], None]:
    """Hold a folder while a training writes there, under the lock that this process has, or under a new one.

    Args:
        folder, kind, where: As for `FolderLock`.

    Returns:
        A function that ends the hold; a lock that was there before stays.

    Raises:
        ValueError: If another run holds the folder, another training of this process too, or if it cannot be written.
    """
    lock = _locks.get(_key(folder))
    if lock is None or lock._process != os.getpid():
        new = FolderLock(folder, kind, where)
        new.is_borrowed = True
        return new.release
    if lock.is_borrowed:
        raise ValueError(_in_use(folder / HOLDER_FILE, kind, where))
    lock.is_borrowed = True

    def give_back() -> None:
        lock.is_borrowed = False

    return give_back


def _key(folder: Path) -> str:
    return os.path.realpath(folder)


def _is_another_hosts(holder_file: Path) -> bool:
    """Whether the file names a process of another host, which may have been killed."""
    try:
        return bool(read_json(holder_file)["host"] != socket.gethostname())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _lives_here(holder_file: Path) -> bool:
    """Whether the file names another process of this host that lives."""
    try:
        holder = read_json(holder_file, dict)
        number, started = int(holder["process"]), float(holder["started"])
        if holder["host"] != socket.gethostname() or number == os.getpid():
            return False
        process = psutil.Process(number)
        return abs(process.create_time() - started) < SAME_START and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, KeyError, TypeError, OverflowError, psutil.Error):
        return False


def _is_touched(holder_file: Path) -> bool:
    """Whether somebody touches the file while it is watched, by the clock of the file system alone."""
    logger.warning(
        f"{holder_file} names a run on another host; this run looks for {WATCH_SECONDS:g} seconds whether it lives."
    )
    first = _touched(holder_file)
    end = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < end and first is not None:
        time.sleep(min(0.5, WATCH_SECONDS))
        if _touched(holder_file) not in (first, None):
            return True
    return False


def _touched(file: Path) -> int | None:
    try:
        with file.open("rb") as opened:  # opening asks a network file system for the time that holds now
            return os.fstat(opened.fileno()).st_mtime_ns
    except OSError:
        return None


def _touch(holder_file: Path, ended: threading.Event, guard: threading.RLock, holder: Mapping[str, Any]) -> None:
    """Touch the file every `BEAT_SECONDS` until the lock's end; write it anew where it was deleted, and tell the user
    where another run has taken the folder since.

    Args:
        holder_file: The file.
        ended: Set at the lock's end.
        guard: Held where the file is written or deleted.
        holder: What the file says.
    """
    is_told = False
    while not ended.wait(BEAT_SECONDS):
        try:
            with guard:
                if ended.is_set():
                    return
                if holder_file.parent.is_dir() and not holder_file.exists():
                    write_whole(holder_file, json.dumps(holder) + "\n")
                    logger.warning(f"{holder_file} was deleted while this run holds the folder; it is there again.")
                os.utime(holder_file)
            now = read_json(holder_file, dict)
        except (OSError, ValueError):  # a full or lost disk, of which the run tells
            continue
        if not is_told and (now.get("host"), now.get("process")) != (holder["host"], holder["process"]):
            is_told = True
            logger.warning(
                f"The lock of {holder_file.parent} was deleted while this run held it, and process "
                f"{now.get('process')} on the host {now.get('host')} has taken the folder: end one of the two runs, "
                "or they mix their files."
            )


def _in_use(holder_file: Path, kind: str, where: str) -> str:
    """The message for a folder that another run holds."""
    advice = "wait until it ends, or choose another --output_dir."
    try:
        holder = read_json(holder_file)
        held_by, process = str(holder["kind"]), f"process {holder['process']} on the host {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # taken by an older version, or in this very moment
        return f"{where} is in use by another {kind}; {advice}"
    article = "another" if held_by == kind else "an" if held_by[0] in "aeiouS" else "a"
    return f"{where} is in use by {article} {held_by}, {process}; {advice}"
