"""Recipes with `--engine vllm` as processes of their own, on a CPU in float32: the same as with transformers."""

import json
import os
import threading
import time
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

VLLM = ["--engine", "vllm", "--vllm_gpu_memory_utilization", "0.1", "--vllm_enforce_eager", "true"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [str(ROOT / "tests"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    for name, value in (ON_CPU | {"PYTHONPATH": os.pathsep.join(filter(None, places))}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)  # an engine is a process of its own


class Followed:
    """A run and the processes below it, which are looked for until it ends."""

    def __init__(self, words: list[str]) -> None:
        self.run = start(words)
        self.titles: dict[psutil.Process, str] = {}
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        own = psutil.Process(self.run.pid)
        while self.run.poll() is None:
            with suppress(psutil.NoSuchProcess):
                for process in own.children(recursive=True):
                    with suppress(psutil.Error):  # it has ended
                        self.titles[process] = " ".join(process.cmdline())
            time.sleep(0.1)

    @property
    def engines(self) -> int:
        """How many engines were seen, by the titles that vLLM gives their processes."""
        return sum("VLLM::EngineCore" in title for title in self.titles.values())

    def finish(self) -> None:
        """It must end well, with all processes below it."""
        finish(self.run, seconds=500)
        self.assert_none_is_left()

    def assert_none_is_left(self) -> None:
        """The processes below a run end soon after it."""
        self._thread.join()
        deadline = time.monotonic() + 30
        while (left := [process for process in self.titles if process.is_running()]) and time.monotonic() < deadline:
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
        followed = Followed([*words, *more, "--output_dir", str(out)])
        followed.finish()
        assert followed.engines == 2 * (name == "vllm")  # the RL model's, and the policy's
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


def test_a_sweep_that_is_killed_goes_on(by_transformers: Path, moved: Path, tmp_path: Path) -> None:
    """SIGKILL after the first threshold, and after the first policy: the engine ends too, and rows are the same."""
    for stage in ("thresholds.json", "cells/*.parquet"):
        followed = Followed(sweep(moved, tmp_path, *VLLM))
        kill_once(followed.run, lambda stage=stage: any(tmp_path.glob(stage)))
        assert followed.engines == 1
        followed.assert_none_is_left()
        assert not (tmp_path / "cross.json").exists()
    Followed(sweep(moved, tmp_path, *VLLM)).finish()
    assert_same_sweep(tmp_path, by_transformers)


@pytest.mark.distributed
def test_two_processes_with_an_engine_each(by_transformers: Path, moved: Path, tmp_path: Path) -> None:
    followed = Followed([*DDP, *sweep(moved, tmp_path, *VLLM)])
    followed.finish()
    assert followed.engines == 2
    assert_same_sweep(tmp_path, by_transformers)
