"""How long processes wait for one another, and how a lost one is told."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from tokenshift.trainer import DivergenceGRPOConfig
from tokenshift.trainer.guard.errors import LostProcessError
from tokenshift.trainer.resume import process_group
from tokenshift.trainer.resume.process_group import (
    ended_ranks,
    lost_process,
    mistake_of_another,
    speaks_for_host,
    start_cpu_group,
    start_process_group,
    tell_mistake,
)

CLOSED = "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:27019"
TIMED_OUT = "[../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 5000ms for recv operation"


@pytest.fixture(autouse=True)
def _nobody_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "_processes", {})
    monkeypatch.setattr(process_group, "ENDING_SECONDS", 0.0)


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of process groups that would have been made."""
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(process_group, "PartialState", lambda **options: made.append(options))
    return made


@pytest.fixture
def ended() -> Iterator[psutil.Process]:
    """A process that has ended; as a launcher's child it is not reaped yet."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    process = psutil.Process(child.pid)
    process.create_time()
    child.kill()
    while process.status() != psutil.STATUS_ZOMBIE:
        pass
    yield process
    child.wait()


def me() -> tuple[str, int, float]:
    return socket.gethostname(), os.getpid(), psutil.Process().create_time()


def test_a_config_gives_its_timeout_to_processes_on_cpu(
    groups: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    settings = {
        "output_dir": str(tmp_path),
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "steps_per_generation": 2,
    }
    settings |= {"steps_per_generation": 2, "ddp_timeout": 7}
    DivergenceGRPOConfig(**settings)
    assert groups == []  # a process alone has no group
    monkeypatch.setattr(process_group, "is_launched", lambda: True)
    DivergenceGRPOConfig(**settings)
    assert groups == [{"cpu": True, "timeout": timedelta(seconds=7)}]
    start_cpu_group(SimpleNamespace(use_cpu=True, ddp_timeout=7, ddp_backend="gloo"))
    assert groups[1] == {"cpu": True, "timeout": timedelta(seconds=7), "backend": "gloo"}
    start_cpu_group(SimpleNamespace(use_cpu=False, ddp_timeout=7, ddp_backend=None))  # transformers makes it on GPUs
    assert len(groups) == 2


def test_processes_that_do_not_come_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**options: Any) -> None:
        raise torch.distributed.DistStoreError("Timed out after 6 seconds waiting for clients. 1/2 clients joined.")

    monkeypatch.setattr(process_group, "PartialState", fails)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LostProcessError, match=r"Not all 2 processes of this run have come within 6 s \(ddp_timeout"):
        start_process_group(6)


def test_a_lost_process_is_named(monkeypatch: pytest.MonkeyPatch, ended: psutil.Process) -> None:
    assert lost_process(RuntimeError("out of memory")) is None
    assert lost_process(ValueError(CLOSED)) is None
    assert lost_process(RuntimeError(CLOSED)) == "Another process of this run is gone."
    assert lost_process(RuntimeError(TIMED_OUT)) == "Another process of this run has not answered within ddp_timeout."
    gone = (socket.gethostname(), ended.pid, ended.create_time())
    monkeypatch.setattr(process_group, "_processes", {0: me(), 1: gone, 2: ("far", 1, 0.0)})
    assert ended_ranks() == [1]
    said = f"Of the 3 processes of this run, rank 1 (process {ended.pid}) on the host {socket.gethostname()} is gone."
    assert lost_process(RuntimeError(CLOSED)) == said
    monkeypatch.setattr(process_group, "_processes", {0: me(), 1: ("far", 1, 0.0)})
    assert lost_process(RuntimeError(CLOSED)) == "Another process of this run is gone. It runs on far."


def test_a_lost_process_is_found_behind_another_error() -> None:
    error = KeyError("state")
    assert lost_process(error) is None
    error.__cause__ = RuntimeError(CLOSED)
    assert lost_process(error) is not None


def test_the_first_that_runs_speaks_for_its_host(monkeypatch: pytest.MonkeyPatch, ended: psutil.Process) -> None:
    gone = (socket.gethostname(), ended.pid, ended.create_time())
    monkeypatch.setattr(process_group, "_processes", {0: ("far", 1, 0.0), 1: gone, 2: me(), 3: me()})
    for rank in (1, 2, 3):
        monkeypatch.setenv("RANK", str(rank))
        assert speaks_for_host() == (rank == 2)
    monkeypatch.setattr(process_group, "_processes", {})
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not speaks_for_host()


def test_of_several_with_one_mistake_the_first_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    store, rank = torch.distributed.HashStore(), 0
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
    monkeypatch.setattr(process_group, "_store", lambda: store)
    monkeypatch.setattr(process_group, "MISTAKE_SECONDS", 0.5)
    assert mistake_of_another() is None
    rank = 1
    assert tell_mistake("no such file")
    assert mistake_of_another() == (1, "no such file")
    rank = 2
    assert not tell_mistake("no such file")
    assert tell_mistake("another mistake")
    rank = 0
    assert tell_mistake("no such file")  # it comes late, and has not heard of the others
