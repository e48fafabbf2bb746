"""Two machines as network namespaces; `make nodes` lets every fault happen, and starts each training again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.nodes import TIMEOUT, Machine, cut_link, goes_on, missing, other_config, two_machines

pytestmark = [pytest.mark.slow, pytest.mark.distributed]


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[Machine, Machine]]:
    if reason := missing():
        pytest.skip(reason)
    with two_machines() as both:
        yield both


def test_another_config_on_one_machine_is_refused_on_both(machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    outcome = other_config(machines, tmp_path / "out")
    assert 0 not in outcome.statuses
    assert None not in outcome.statuses, outcome.said
    said = "learning_rate is 0.001 on rank 0 ("
    assert any(said in line and "but 0.002 on rank 1" in line for line in outcome.lines(0)), outcome.said[0]
    for rank, machine in enumerate(machines):
        (first, *_) = outcome.lines(rank)
        assert f"Machine {rank} of 2" in first
        assert f"use the interface {machine.interface} ({machine.address})" in first
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_a_link_that_is_cut_ends_both_and_the_run_goes_on(machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    outcome = cut_link(machines, tmp_path / "out")
    assert 0 not in outcome.statuses
    assert None not in outcome.statuses, outcome.said
    for rank in range(2):
        assert any("Another process of this run" in line for line in outcome.lines(rank)), outcome.said[rank]
        assert outcome.seconds[rank] < TIMEOUT + 30, outcome.seconds
    again = goes_on(machines, tmp_path / "out")
    assert again.statuses == [0, 0], again.said
    assert (tmp_path / "out" / "summary.json").is_file()
