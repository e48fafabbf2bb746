"""Recipes with `--engine vllm` as processes of their own, on a CPU in float32: the same as with transformers."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from helpers.launched_recipes import ROOT, finish, start
from helpers.pocket_models import BASE, save_moved
from helpers.recorded_answers import FILE_VARIABLE
from helpers.vllm_pairs import ON_CPU
from safetensors.torch import load_file

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

VLLM = ["--engine", "vllm", "--vllm_gpu_memory_utilization", "0.1", "--vllm_enforce_eager", "true"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [str(ROOT / "tests"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    for name, value in (ON_CPU | {"PYTHONPATH": os.pathsep.join(filter(None, places))}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)  # an engine is a process of its own


@pytest.fixture
def _no_process_is_left() -> Iterator[None]:
    """vLLM's processes, which have titles of their own, end soon after those that started them."""
    before = engine_processes()
    yield
    deadline = time.monotonic() + 30
    while (left := engine_processes() - before) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


def engine_processes() -> set[int]:
    """The processes whose command line or title is vLLM's."""
    return {
        process.pid
        for process in psutil.process_iter(["cmdline", "name"])
        if any("VLLM::" in word for word in [process.info["name"] or "", *(process.info["cmdline"] or [])])
    }


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


@pytest.mark.usefixtures("_no_process_is_left")
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
