"""Processes on several machines exchange mistakes before they have a process group, over a real key-value store."""

import socket
import threading
from datetime import timedelta

import pytest
import torch

from tokenshift.trainer.guard.errors import LostProcessError
from tokenshift.trainer.resume import before_group
from tokenshift.trainer.resume.before_group import tell_all, wait_for_all
from tokenshift.trainer.resume.process_group import is_lost


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> torch.distributed.TCPStore:
    """The store that the launcher of a run of two processes on two machines keeps; this process is rank 1."""
    kept = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=5))
    values = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "RANK": "1", "MASTER_ADDR": "127.0.0.1"}
    values |= {"MASTER_PORT": str(kept.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(before_group, "_state", {"waited": False})
    monkeypatch.setattr(before_group, "_POLL_SECONDS", 0.01)
    return kept


def test_all_have_come(store: torch.distributed.TCPStore) -> None:
    store.add(before_group._HERE, 1)
    wait_for_all(5)
    wait_for_all(0)  # once in a process
    assert store.add(before_group._HERE, 0) == 2


def test_one_does_not_come(store: torch.distributed.TCPStore) -> None:
    with pytest.raises(
        LostProcessError, match=r"Not all 2 processes of this run have come within 0.1 s \(ddp_timeout"
    ) as lost:
        wait_for_all(0.1)
    assert is_lost(lost.value)  # by which a recipe says it in a line


def test_a_mistake_of_one_is_heard_by_the_other(
    store: torch.distributed.TCPStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    def other() -> None:
        with pytest.raises(LostProcessError) as raised:
            wait_for_all(5)
        heard.append(str(raised.value))

    tell_all("no such file")
    thread = threading.Thread(target=other)
    monkeypatch.setattr(before_group, "_state", {"waited": False})
    thread.start()
    thread.join(5)
    text = (
        f"Rank 1 on the host {socket.gethostname()} has ended with a mistake that this process has not: no such file"
    )
    assert heard == [text]
    assert store.add(before_group._HEARD, 0) == 2


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(before_group, "HEARD_SECONDS", 0.2)


def test_the_launcher_has_ended(store: torch.distributed.TCPStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    with pytest.raises(LostProcessError, match=r"The launcher on the main machine \(127.0.0.1\) has ended"):
        wait_for_all(1)
    monkeypatch.setattr(before_group, "_state", {"waited": False})
    tell_all("no such file")  # nobody is there to hear it


def test_one_machine_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(before_group, "_store", lambda timeout: pytest.fail("it asked the store"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    wait_for_all(5)
    tell_all("no such file")
