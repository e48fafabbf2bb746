"""The processes that a recipe starts, all of which it can stop, and those that a killed recipe left running."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil
from rich.console import Console

FOLDER_VARIABLE = "TOKENSHIFT_CELL"
"""Environment variable with the folder that a process works on; its own children have it too."""

GRACE_SECONDS = 20.0
"""Seconds that an orphan may take to end with a checkpoint."""


class Stopped(Exception):
    """No more processes are to be started."""


LOG_TAIL_BYTES = 2**14
"""Length of the end of a log that is read."""


class Children:
    """Processes in sessions of their own, so that Ctrl-C reaches them once, from here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, Path] = {}
        self._stopping = False

    def run(self, command: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str]) -> int:
        """Run a command to its end, and append its output to a log.

        Args:
            command: the words of the command line.
            folder: the folder that it works on, by which `working_on` finds it.
            log: a text file.
            environment: environment variables beside those of this process.

        Returns:
            The exit status.

        Raises:
            Stopped: if all processes are to stop.
        """
        marked = {**os.environ, **environment, FOLDER_VARIABLE: str(folder.resolve())}
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
        """Ask all processes to stop, as Ctrl-C does, start no more, and return how many there were."""
        with self._lock:
            self._stopping = True
            for pid in self._running:
                with suppress(ProcessLookupError):  # it has just ended
                    os.killpg(pid, signal.SIGINT)
            return len(self._running)

    def kill(self) -> None:
        """Kill all processes at once, and start no more."""
        with self._lock:
            self._stopping = True
            for folder in self._running.values():
                for process in working_on(folder):
                    _send(process, signal.SIGKILL)


def working_on(folder: Path) -> list[psutil.Process]:
    """Running processes that any recipe started to work on a folder, and their children.

    They are recognised by their environment and not by a recorded id: workers of a launcher have sessions of their
    own, and a recipe can be killed between starting a process and recording it.
    """
    processes, wanted = [], str(folder.resolve())
    for process in psutil.process_iter():
        try:
            if process.environ().get(FOLDER_VARIABLE) == wanted and process.pid != os.getpid():
                processes.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, OSError):
            continue
    return processes


def end_orphans(folder: Path, grace: float = GRACE_SECONDS) -> int:
    """End the processes that a killed recipe left working on a folder, by SIGTERM first, and wait for their end.

    Parents are ended before the processes that serve them: a training needs its verification workers and W&B's service
    to end with a checkpoint. The locks that the processes hold end with them.

    Returns:
        How many processes there were.
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


def shares(parallel: int) -> list[dict[str, str]]:
    """Environment variables of processes that run side by side, which share the CPU threads and the visible GPUs."""
    if parallel == 1:
        return [{}]
    threads = int(os.environ.get("OMP_NUM_THREADS") or psutil.cpu_count() or 1)
    environments = [{"OMP_NUM_THREADS": str(max(1, threads // parallel))} for _ in range(parallel)]
    gpus = _visible_gpus()
    if len(gpus) > 1:
        count = max(1, len(gpus) // parallel)
        for index, environment in enumerate(environments):
            start = index * count % len(gpus)
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[start : start + count])
    return environments


def _visible_gpus() -> list[str]:
    import torch  # here: whoever imports this module alone must not wait for it

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu.strip() for gpu in named.split(",") if gpu.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]


def log_tail(log: Path) -> str:
    """The end of a log, at most `LOG_TAIL_BYTES` of it; empty where there is none."""
    if not log.is_file():
        return ""
    with log.open("rb") as opened:
        opened.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        return opened.read().decode("utf-8", errors="replace")


@contextmanager
def stoppable_pool(children: Children, parallel: int, console: Console) -> Iterator[ThreadPoolExecutor]:
    """Threads that run children, which are stopped by SIGINT where the block ends with an error, Ctrl-C or SIGTERM.

    The children are waited for; a second Ctrl-C ends them at once.

    Args:
        children: The children that the threads run.
        parallel: The number of threads.
        console: The console on which the user is told.
    """
    pool = ThreadPoolExecutor(parallel)
    try:
        with sigterm_interrupts():
            yield pool
    except BaseException as error:
        running = children.stop()
        if isinstance(error, KeyboardInterrupt) and running:
            console.print(f"Stopping {running} running; trainings save a checkpoint. Ctrl-C again ends them at once.")
        try:
            pool.shutdown(cancel_futures=True)
        except KeyboardInterrupt:
            children.kill()
            pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does.

    Outside of the main thread nothing changes, nor where SIGTERM has a handler, which `run_guarded` gives it.
    """
    handled = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    if handled or threading.current_thread() is not threading.main_thread():
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
