"""Two machines as network namespaces; `make nodes` lets every fault happen, and starts each training again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.nodes import Machine, missing, other_config, two_machines, wrongs


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    if reason := missing():
        pytest.skip(reason)
    with two_machines() as both:
        yield both


@pytest.mark.slow
@pytest.mark.distributed
def test_another_config_on_one_machine_is_refused_on_both(machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    outcome = other_config(machines, tmp_path / "out")
    assert wrongs("other config", outcome) == [], outcome.said
    for rank, machine in enumerate(machines):
        (first, *_) = outcome.lines(rank)
        assert f"Machine {rank} of 2 (machine{rank})" in first
        assert f"use the interface {machine.interface} ({machine.address})" in first
    assert not list((tmp_path / "out").glob("checkpoint-*"))
