"""Recipes with `--engine vllm` as processes of their own, on a CPU in float32: the same as with transformers."""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from helpers.launched_recipes import DDP, ROOT, finish, kill_once, start
from helpers.pocket_models import BASE, save_moved
from helpers.recorded_answers import FILE_VARIABLE
from helpers.vllm_pairs import ON_CPU, RELATIVE_TOLERANCE, SCORE_TOLERANCE
from safetensors.torch import load_file

from tokenshift.analysis.cross_sampling.sweep_run import SWEEP_SCHEMA

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

MARK_VARIABLE = "TOKENSHIFT_TEST_MARK"
"""Environment variable by which the processes of a test are told from others."""

VLLM = ["--engine", "vllm", "--vllm_gpu_memory_utilization", "0.1", "--vllm_enforce_eager", "true"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [str(ROOT / "tests"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    for name, value in (ON_CPU | {"PYTHONPATH": os.pathsep.join(filter(None, places))}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)  # an engine is a process of its own


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[psutil.Process]]]:
    """The processes that this test started, and those that they did; in the end none is left."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK_VARIABLE, mark)

    def living() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK_VARIABLE) == mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    yield living
    assert_none_is_left(living)


def assert_none_is_left(living: Callable[[], list[psutil.Process]]) -> None:
    """Processes end soon after the one that started them."""
    deadline = time.monotonic() + 30
    while (left := living()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


# The SFT control -------------------------------------------------------------------------------------------------

CONTROL = {
    "rl_model": str(BASE),
    "max_steps": 6,
    "check_steps": 2,
    "train_size": 64,
    "eval_size": 24,
    "max_new_tokens": 24,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-3,
    "bf16": "false",
    "gradient_checkpointing": "false",
    "save_strategy": "no",
    "report_to": "none",
    "reward_func": "helpers.recorded_answers.right_at_first",  # the target is 1, and no check reaches it
    "seed": 3,
}


@pytest.mark.usefixtures("started")
def test_the_sft_control_measures_as_with_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The responses of the RL model and of each check, the summary, and the trained weights."""
    moved = save_moved(tmp_path / "moved", 0.6)
    settings: dict[str, Any] = {**CONTROL, "base_model": str(moved)}
    words = [str(ROOT / "recipes" / "sft_control.py")]
    words += [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    answers, summaries, weights = {}, {}, {}
    for name, more in (("transformers", []), ("vllm", VLLM)):
        out = tmp_path / name
        monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / f"{name}.jsonl"))
        finish(start([*words, *more, "--output_dir", str(out)]), seconds=500)
        answers[name] = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        summaries[name] = json.loads((out / "summary.json").read_text())
        weights[name] = load_file(out / "model" / "model.safetensors")
        assert not (out / ".incomplete").exists()
    assert answers["vllm"] == answers["transformers"]
    assert len(answers["vllm"]) == 5  # the target's, and those before the updates and after 2, 4 and 6
    assert len({json.dumps(each) for each in answers["vllm"]}) == 5  # the policy moved
    for name in ("target", "checks", "base", "accuracy", "updates"):
        assert summaries["vllm"][name] == summaries["transformers"][name]
    assert weights["vllm"].keys() == weights["transformers"].keys()
    assert all(torch.equal(value, weights["transformers"][name]) for name, value in weights["vllm"].items())


# Analyses ----------------------------------------------------------------------------------------------------------

SWEEP = ["--size", "6", "--batch_size", "4", "--max_new_tokens", "24", "--resamples", "20", "--verify_workers", "1"]
SWEEP += ["--criteria", "js", "random", "--pilot", "5", "--budgets", "0.1", "0.3"]


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_moved(tmp_path_factory.mktemp("moved"), 0.1)


def sweep(moved: Path, out: Path, *more: str) -> list[str]:
    recipe = str(ROOT / "recipes" / "cross_sample.py")
    return [recipe, "--rl_model", str(moved), "--output_dir", str(out), *SWEEP, *more]


@pytest.fixture(scope="module")
def by_transformers(moved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep by the engine of transformers, in one process."""
    out = tmp_path_factory.mktemp("transformers")
    finish(start(sweep(moved, out)))
    return out


def assert_same_sweep(ours: Path, theirs: Path) -> None:
    """All rows are equal, but for the last digits of scores."""
    found, expected = (
        {path.name: pq.read_table(path) for path in sorted((out / "cells").iterdir())} for out in (ours, theirs)
    )
    assert found.keys() == expected.keys()
    for name, table in found.items():
        assert table.schema.remove_metadata() == SWEEP_SCHEMA
        for column in SWEEP_SCHEMA.names:
            values, others = (part[column].combine_chunks() for part in (table, expected[name]))
            if column in ("scores", "js"):
                assert values.value_lengths().equals(others.value_lengths())
                values, others = (torch.tensor(part.flatten().to_pylist()) for part in (values, others))
                torch.testing.assert_close(
                    values, others, rtol=RELATIVE_TOLERANCE, atol=SCORE_TOLERANCE, equal_nan=True
                )
            elif column == "epsilon":  # a threshold lies between scores
                assert values.to_pylist() == pytest.approx(others.to_pylist(), abs=SCORE_TOLERANCE)
            else:
                assert values.equals(others), (name, column)


def test_a_sweep_that_is_killed_goes_on(
    by_transformers: Path, moved: Path, tmp_path: Path, started: Callable[[], list[psutil.Process]]
) -> None:
    """SIGKILL when thresholds are looked for, and when the first policy has decoded: the engine ends too."""
    for stage in ("thresholds.json", "cells/*.parquet"):
        run = start(sweep(moved, tmp_path, *VLLM))
        seen: list[int] = []

        def begun(stage: str = stage, seen: list[int] = seen) -> bool:
            there = any(tmp_path.glob(stage))
            if there:
                seen.append(len(started()))
            return there

        kill_once(run, begun)
        assert seen[-1] > 1  # an engine is a process of its own
        assert_none_is_left(started)
        assert not (tmp_path / "cross.json").exists()
    finish(start(sweep(moved, tmp_path, *VLLM)))
    assert_same_sweep(tmp_path, by_transformers)


@pytest.mark.distributed
@pytest.mark.usefixtures("started")
def test_two_processes_with_an_engine_each(by_transformers: Path, moved: Path, tmp_path: Path) -> None:
    finish(start([*DDP, *sweep(moved, tmp_path, *VLLM)]), seconds=500)
    assert_same_sweep(tmp_path, by_transformers)
