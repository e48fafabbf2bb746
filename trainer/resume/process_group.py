"""The processes of a launched run: how long they wait for one another, and which of them has ended.

transformers gives `ddp_timeout` to process groups on GPUs alone. On CPU a process would wait half an hour for one that
does not answer.
"""

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psutil
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from tokenshift.trainer.guard.errors import LostProcessError
from tokenshift.trainer.resume.before_group import wait_for_all

DDP_TIMEOUT = 1800.0
"""Seconds that a process waits for the others where nobody says otherwise; transformers' default."""

MISTAKE_SECONDS = 3.0
"""Seconds that a process with a mistake waits for the first process, which may have the same."""

ENDING_SECONDS = 1.0
"""Seconds in which a process whose connections are closed has ended."""

_COMMUNICATION = re.compile(
    r"gloo|Connection (closed|reset) by peer|Broken pipe|Timed out waiting|Socket Timeout|wait timeout|"
    r"timeout in .*(monitoredBarrier|barrier)|failed to (recv|send)",
    re.IGNORECASE,
)
"""Words of a RuntimeError by which a collective operation failed since another process did not take part."""

_processes: dict[int, tuple[str, int, float]] = {}
"""The processes of the run: rank -> host, process id and when it was started, as the host counts."""


def is_launched() -> bool:
    """Whether this process is one of several that were launched together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def start_process_group(timeout: float, *, cpu: bool = True, backend: str | None = None) -> PartialState:
    """Find the processes that were launched together; where there is no process group yet, make it.

    Args:
        timeout: Seconds that a process waits for the others before it ends with an error.
        cpu: Whether the processes compute on CPU.
        backend: The backend of the group; torch's for the device when None.

    Raises:
        LostProcessError: if some process did not come within the timeout, or has ended with a mistake.
    """
    wait_for_all(timeout)
    options: dict[str, Any] = {} if backend is None else {"backend": backend}
    try:
        return PartialState(cpu=cpu, timeout=timedelta(seconds=float(timeout)), **options)
    except (RuntimeError, torch.distributed.DistError) as error:
        if lost_process(error) is None:
            raise
        raise LostProcessError(
            f"Not all {os.environ.get('WORLD_SIZE')} processes of this run have come within {timeout:g} s "
            f"(ddp_timeout): see what the others said. Nothing was done."
        ) from error


def start_cpu_group(args: Any) -> None:
    """Make the process group of a training on CPU with its `ddp_timeout`; on GPUs transformers does so.

    On several machines, wait before either until all processes are there.

    Args:
        args: The `TrainingArguments`, before their own initialization.
    """
    if not is_launched():
        return
    wait_for_all(args.ddp_timeout)
    if args.use_cpu or parse_flag_from_env("ACCELERATE_USE_CPU"):
        start_process_group(args.ddp_timeout, backend=args.ddp_backend)


def meet() -> None:
    """Learn which processes the run has, by their hosts and ids; every process must call it, once there is a group."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return
    me = (socket.gethostname(), os.getpid(), psutil.Process().create_time())
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, me)
    _processes.clear()
    _processes.update(enumerate(everyone))


def ended_ranks() -> list[int]:
    """The ranks on this host whose processes have ended, as far as processes have met."""
    here = {rank: (pid, born) for rank, (host, pid, born) in _processes.items() if host == socket.gethostname()}
    return [rank for rank, (pid, born) in here.items() if not _runs(pid, born)]


def _runs(pid: int, born: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.create_time() == born and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def speaks_for_host() -> bool:
    """Whether this is the first process on its host that still runs: it says what has happened, for the others too."""
    if not _processes:
        return os.environ.get("LOCAL_RANK", "0") == "0"
    ended = ended_ranks()
    here = [rank for rank, (host, _, _) in _processes.items() if host == socket.gethostname() and rank not in ended]
    return not here or min(here) == int(os.environ.get("RANK", "0"))


def is_lost(error: BaseException) -> bool:
    """Whether a collective operation failed since another process did not take part."""
    return any(_is_communication(link) for link in _chain(error))


def lost_process(error: BaseException) -> str | None:
    """A sentence that names the process that was lost, where that made a collective operation fail; else None."""
    if not is_lost(error):
        return None
    deadline = time.monotonic() + ENDING_SECONDS
    while not (ended := ended_ranks()) and time.monotonic() < deadline:
        time.sleep(0.05)
    if ended:
        of = ", ".join(f"rank {rank} (process {_processes[rank][1]})" for rank in ended)
        words = "is" if len(ended) == 1 else "are"
        return f"Of the {len(_processes)} processes of this run, {of} on the host {socket.gethostname()} {words} gone."
    others = sorted({host for host, _, _ in _processes.values()} - {socket.gethostname()})
    where = f" It runs on {' or '.join(others)}." if others else ""
    if any("imed out" in str(link) or "imeout" in str(link) for link in _chain(error)):
        return f"Another process of this run has not answered within ddp_timeout.{where}"
    return f"Another process of this run is gone.{where}"


def tell_mistake(text: str) -> bool:
    """Let the other processes know of a user's mistake that this process has found.

    Returns:
        Whether this process is the one that says it: of several with the same mistake the first does, which the
        others wait for a little. Before they have met, it is the first of each machine.
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")) == "0"
    rank = torch.distributed.get_rank()
    try:
        store = _store()
        store.set(_mistake_key(rank), text)
        deadline = time.monotonic() + MISTAKE_SECONDS
        while rank > 0 and time.monotonic() < deadline and not store.check([_mistake_key(0)]):
            time.sleep(0.05)
        earlier = [store.get(_mistake_key(other)) for other in range(rank) if store.check([_mistake_key(other)])]
        return text.encode() not in earlier
    except RuntimeError:  # the process that keeps the store has ended: it has said it
        return False


def mistake_of_another() -> tuple[int, str] | None:
    """The first mistake that another process has found: its rank and the text; None where there is none.

    Where the link to the machine that keeps the store is cut, a question to it would wait for minutes.
    """
    if not torch.distributed.is_initialized() or (0 in ended_ranks() and not _has_agent_store()):
        return None
    found: list[tuple[int, str]] = []

    def ask() -> None:
        store, ranks = _store(), range(torch.distributed.get_world_size())
        with contextlib.suppress(RuntimeError):
            rank = next((rank for rank in ranks if store.check([_mistake_key(rank)])), None)
            if rank is not None:
                found.append((rank, store.get(_mistake_key(rank)).decode()))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(MISTAKE_SECONDS)
    return found[0] if found else None


def host_of(rank: int) -> str:
    """The host of a process, as far as processes have met."""
    return _processes[rank][0] if rank in _processes else "unknown"


def _mistake_key(rank: int) -> str:
    return f"tokenshift/mistake/{rank}"


def _store() -> Any:
    """The key-value store by which the processes found one another; it works where collective operations do not."""
    return torch.distributed.distributed_c10d._get_default_store()


def _has_agent_store() -> bool:
    """Whether the store is kept by the launcher, and so outlives the first process."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE", "").lower() == "true"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came from."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _is_communication(error: BaseException) -> bool:
    if isinstance(error, torch.distributed.DistError | LostProcessError):
        return True
    return isinstance(error, RuntimeError) and bool(_COMMUNICATION.search(str(error)))
