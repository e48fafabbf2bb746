"""Lets processes on several machines tell one another of mistakes before they have a process group.

torch lets a process wait `ddp_timeout` for one that does not come. On one machine the launcher ends the others of a
process that has failed; on another machine nobody does. So each process says here that it is there, or which mistake
has ended it, in the key-value store that the main machine's launcher keeps.
"""

import os
import socket
import time
from datetime import timedelta
from typing import Any

import torch

from tokenshift.trainer.guard.errors import LostProcessError

HEARD_SECONDS = 15.0
"""Seconds that a process with a mistake waits at most until all others have heard of it: they may still import."""

_POLL_SECONDS = 0.1
_ATTEMPT = os.environ.get(
    "TORCHELASTIC_RESTART_COUNT", "0"
)  # the launcher's store outlives the processes that it starts anew
_HERE, _HEARD, _MISTAKE = (f"tokenshift/before_group/{_ATTEMPT}/{name}" for name in ("here", "heard", "mistake"))

_state = {"waited": False}


def is_on_several_machines() -> bool:
    """Whether the processes of this run are on more than one machine, under a launcher that keeps a store."""
    size, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return size > local and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def wait_for_all(timeout: float) -> None:
    """Wait until every process of a run on several machines is there; the first call of a process does it.

    Args:
        timeout: Seconds.

    Raises:
        LostProcessError: If one has ended with a mistake, the main machine's launcher has ended, or not all have come
            in time.
    """
    if _state["waited"] or not is_on_several_machines() or torch.distributed.is_initialized():
        return
    _state["waited"] = True
    size, deadline = int(os.environ["WORLD_SIZE"]), time.monotonic() + timeout
    try:
        store = _store(timeout)
        store.add(_HERE, 1)
        while store.add(_HERE, 0) < size or store.check([_MISTAKE]):
            if store.check([_MISTAKE]):
                text = store.get(_MISTAKE).decode()
                store.add(_HEARD, 1)
                raise LostProcessError(text)
            if time.monotonic() > deadline:
                raise LostProcessError(
                    f"Not all {size} processes of this run have come within {timeout:g} s (ddp_timeout): see what the "
                    "others said. Nothing was done."
                )
            time.sleep(_POLL_SECONDS)
    except (torch.distributed.DistError, ConnectionError) as error:
        raise LostProcessError(
            f"The launcher on the main machine ({os.environ.get('MASTER_ADDR')}) has ended, or cannot be reached: see "
            "what it said. Nothing was done."
        ) from error


def tell_all(text: str) -> None:
    """Tell the other machines of a mistake that ends this process before there is a process group.

    The process waits a little until they have heard it: with the main machine's launcher the store ends.

    Args:
        text: The mistake, in one line.
    """
    if _state["waited"] or not is_on_several_machines() or torch.distributed.is_initialized():
        return
    _state["waited"] = True
    size, deadline = int(os.environ["WORLD_SIZE"]), time.monotonic() + HEARD_SECONDS
    rank, host = os.environ.get("RANK"), socket.gethostname()
    try:
        store = _store(HEARD_SECONDS)
        store.compare_set(
            _MISTAKE, "", f"Rank {rank} on the host {host} has ended with a mistake that this process has not: {text}"
        )
        store.add(_HEARD, 1)
        while store.add(_HEARD, 0) < size and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    except (torch.distributed.DistError, ConnectionError):
        return  # the main machine's launcher has ended


def _store(timeout: float) -> Any:
    return torch.distributed.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        timeout=timedelta(seconds=timeout),
    )
