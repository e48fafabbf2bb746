"""The benchmark of one and of two processes: how the work is shared, and what is made of its times."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tokenshift.analysis.sampling.generators import TransformersGenerator
from tokenshift.recipes.benchmarks import processes


def test_two_processes_share_the_responses_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled: list[Any] = []

    def sample(self: TransformersGenerator, requests: Any) -> list[list[int]]:
        sampled.append(requests)
        return [[] for _ in requests]

    monkeypatch.setattr(TransformersGenerator, "__call__", sample)
    for rank, count in ((0, 1), (0, 2), (1, 2)):
        works = processes.works("pocket", tmp_path / str(count), rank, count)
        assert list(works) == [processes.SCORING, processes.EVALUATION, processes.TRAINING]
        works[processes.EVALUATION]()
    whole, *parts = sampled
    assert len(whole) == processes.RESPONSES
    shared = sorted((request for part in parts for request in part), key=lambda request: request.row)
    assert shared == whole


def test_throughput_is_relative_to_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = dict(zip(processes.CASES, ([6.0, 8.0], [3.0, 4.0], [2.0, 2.0]), strict=True))
    monkeypatch.setattr(processes, "_launched", lambda name, model, rounds: {processes.SCORING: seconds[name]})
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda process: {0, 1})
    file = tmp_path / "times.json"
    monkeypatch.setattr(sys, "argv", ["processes", "--rounds", "2", "--json", str(file)])
    assert processes.main() == 0
    printed = capsys.readouterr().out
    assert "scoring: 1 process, 2 threads 2 (2 to 2); 2 processes, 1 thread each 3.43 (3.2 to 3.69)" in printed
    assert json.loads(file.read_text())["seconds"]["2 processes, 1 thread each"] == {"scoring": [2.0, 2.0]}
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda process: {0})
    with pytest.raises(SystemExit):
        processes.main()
    assert "two processes need two CPUs" in capsys.readouterr().err
