"""Processes that a recipe starts, all of which it can stop; and those that an earlier, killed recipe left running."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil

MARK = "TOKENSHIFT_CELL"
"""Environment variable with the folder that a process works on; its own children have it too."""

GRACE = 20.0
"""Seconds in which an orphan may end with a checkpoint."""


class Stopped(Exception):
    """No more processes are to be started."""


class Children:
    """Processes of their own sessions, so that Ctrl-C comes to them once, from here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, Path] = {}
        self._stopping = False

    def run(self, command: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str]) -> int:
        """Run a command to its end, its output at the end of `log`; its exit status.

        Args:
            command: its words.
            folder: what it works on.
            log: a text file.
            environment: variables beside those of this process.

        Raises:
            Stopped: if all are to stop.
        """
        marked = {**os.environ, **environment, MARK: str(folder.resolve())}
        with self._lock:
            if self._stopping:
                raise Stopped
            with log.open("ab") as output:
                process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=marked,
                    start_new_session=True,
                )
            self._running[process.pid] = folder
        try:
            status = process.wait()
        finally:
            with self._lock:
                del self._running[process.pid]
        if self._stopping:
            raise Stopped
        return status

    def stop(self) -> int:
        """Ask all to stop, as Ctrl-C does, and start no more; how many there were."""
        with self._lock:
            self._stopping = True
            for pid in self._running:
                with suppress(ProcessLookupError):  # it has just ended
                    os.killpg(pid, signal.SIGINT)
            return len(self._running)

    def kill(self) -> None:
        """End all at once, and start no more."""
        with self._lock:
            self._stopping = True
            for folder in self._running.values():
                for process in working_on(folder):
                    _send(process, signal.SIGKILL)


def working_on(folder: Path) -> list[psutil.Process]:
    """Running processes that were started, by whatever recipe, to work on a folder, and their children.

    Looked for by environment and not by a noted id: workers of a launcher have sessions of their own, and a recipe can
    be killed between starting a process and noting it.
    """
    found, wanted = [], str(folder.resolve())
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == wanted and process.pid != os.getpid():
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, OSError):
            continue
    return found


def end_orphans(folder: Path, grace: float = GRACE) -> int:
    """End what a killed recipe left working on a folder, by SIGTERM first; how many there were.

    Parents come before the processes that serve them: a training needs its verification workers and W&B's service to
    end with a checkpoint.
    """
    orphans = working_on(folder)
    left = orphans
    while left:
        pids = {process.pid for process in left}
        first = [process for process in left if _parent(process) not in pids]
        for process in first:
            _send(process, signal.SIGTERM)
        _, stubborn = psutil.wait_procs(first, timeout=grace)
        if stubborn or not first:
            break
        left = [process for process in left if _runs(process)]
    for process in left:
        _send(process, signal.SIGKILL)
    psutil.wait_procs(left, timeout=grace)
    return len(orphans)


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return None


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does; outside of the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)
