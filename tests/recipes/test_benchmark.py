"""The benchmark runs through at small shapes, and its arithmetic is right."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.pocket_models import base_and_moved

from tokenshift.analysis.thresholds import LOG_2
from tokenshift.recipes.benchmark import BenchmarkArguments, prepare
from tokenshift.recipes.benchmarks import cross_cost, gpu_check, sweep_cost
from tokenshift.recipes.benchmarks.startup_cost import PYTHON, TORCH, command_lines, cpu_seconds
from tokenshift.recipes.benchmarks.statistics_cost import JS, Shapes, peak_bytes, statistics_functions
from tokenshift.recipes.benchmarks.statistics_error import errors
from tokenshift.recipes.benchmarks.timing import ratio

ROOT = Path(__file__).parent.parent.parent
SMALL = Shapes(tokens=96, hidden=32, vocabulary=3000, dtype="float32", device="cpu")


def test_ratios_are_taken_inside_rounds() -> None:
    times = {"a": [1.0, 4.0, 9.0], "b": [1.0, 2.0, 3.0]}
    found = ratio(times, "a", "b")
    assert (found.middle, found.rounds) == (2.0, 3)
    assert (found.low, found.high) == (1.5, 2.5)  # never beyond the rounds
    assert found.inverse().middle == 0.5


def test_peak_memory_counts_tensors() -> None:
    assert peak_bytes(lambda: torch.zeros(1000).add(1).sum(), "cpu") == pytest.approx(8000, abs=1000)
    assert 0 < peak_bytes(statistics_functions(SMALL)[JS], "cpu") < 19 * 2**20


def test_errors_are_within_the_promise() -> None:
    for dtype, outputs in errors(SMALL, tokens=64).items():
        for name, (absolute, relative) in outputs.items():
            allowed = absolute <= 1e-5 if name.startswith("js") else min(absolute, relative) <= 1e-4
            assert allowed, (dtype, name, absolute, relative)


def test_ways_of_cross_sampling_that_are_compared_agree(tmp_path: Path) -> None:
    """Or their times could not be compared."""
    _base, moved, tokenizer = base_and_moved()
    moved.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    cost = cross_cost.cross_cost("pocket", str(tmp_path), 0.01, shape=(7, 3, 12))
    draft, lockstep, obvious = (
        [each.completion_ids for each in cost.functions[name]()]
        for name in (cross_cost.DRAFT, cross_cost.LOCKSTEP, cross_cost.OBVIOUS)
    )
    assert draft == lockstep == obvious
    assert cost.unequal == 0
    never = cross_cost.cross_cost("pocket", str(tmp_path), LOG_2, obvious=False, shape=(7, 3, 12))
    alone = never.functions[cross_cost.PLAIN]()
    assert alone == [each.completion_ids for each in never.functions[cross_cost.DRAFT]()] != draft
    assert cost.longer == sum(map(len, draft)) / sum(map(len, alone))


def test_sweeps_that_are_compared_have_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _base, moved, tokenizer = base_and_moved()
    moved.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setitem(sweep_cost.CRITERIA, "pocket", ("js",))
    monkeypatch.setitem(sweep_cost.BUDGETS, "pocket", (0.1, 0.3))
    cost = sweep_cost.sweep_cost("pocket", str(tmp_path), ("tree", "lockstep"), (4, 4, 12))
    assert list(cost.seconds) == ["tree", "lockstep"]
    assert (cost.cells, cost.unequal) == (8, 0)
    assert cost.tokens["tokens_in_cells"] > 2 * cost.tokens["tokens_decoded"] > 0


def test_startup_counts_the_childs_own_time() -> None:
    idle, busy = "import time; time.sleep(1)", "import time\nwhile time.process_time() < 1: pass"
    assert cpu_seconds([sys.executable, "-c", idle]) < 0.8 < cpu_seconds([sys.executable, "-c", busy]) < 3


def test_startup_times_what_its_names_say() -> None:
    lines = command_lines()
    assert lines[PYTHON][1:] == ["-c", "pass"]
    assert lines[TORCH][1:] == ["-c", "import torch"]
    wrong = [name for name in lines if name.startswith("tokenshift train, a")]
    assert len(wrong) == 3
    for name in wrong:
        run = subprocess.run(lines[name], capture_output=True, text=True, check=False)
        assert (run.returncode, run.stdout) == (2, ""), name
        assert len(run.stderr.splitlines()) == 1, name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--parts", "errorz"], "parts='errorz' is not known; choose of statistics, errors"),
        (["--trainings", "k9"], "trainings='k9' is not known"),
        (["--model", "mine"], "model='mine' is not known; choose of pocket, smollm2"),
        (["--dtype", "int8"], "dtype='int8' is not known"),
        (["--rounds", "0"], "rounds=0 must be at least 1"),
    ],
)
def test_mistakes(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(words)


def test_shapes_are_the_devices_but_for_what_is_given() -> None:
    assert BenchmarkArguments(tokens=64, dtype="float16").shapes == replace(
        BenchmarkArguments().shapes, tokens=64, dtype="float16"
    )


@pytest.mark.slow
def test_runs_through() -> None:
    arguments = ["--rounds", "1", "--tokens", "64", "--hidden", "16", "--vocabulary", "1000"]
    run = subprocess.run(
        [sys.executable, str(ROOT / "recipes" / "benchmark.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "COLUMNS": "200"},  # words are not broken over lines
    )
    assert run.returncode == 0, run.stdout + run.stderr
    words = ("token_statistics: N 64", "js against base", "none, probe off", "reverse_kl_top_p", "scoring: pocket")
    for word in words:
        assert word in run.stdout


def test_the_gpu_check_runs_at_small_sizes(tmp_path: Path) -> None:
    assert gpu_check.main(["--tiny", "--output_dir", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "gpu.json").read_text())
    parts = [row["part"] for row in written["rows"]]
    assert set(parts) == {"tests", "statistics", "kernel", "training", "scoring", "cross-sampling"}
    assert parts == sorted(parts, key=list(dict.fromkeys(parts)).index), "parts keep their order"
    found = {row["what"]: row["found"] for row in written["rows"]}
    assert found["all outputs, once more"] == "equal bits"
    assert found["responses that differ"] == "0"
    assert len([row for row in written["rows"] if row["part"] == "training"]) == 2 * len(gpu_check.TRAINED)
    table = (tmp_path / "gpu.md").read_text().splitlines()
    assert table[0].startswith("CPU, torch")
    assert len(table) == 4 + len(parts)


def test_parts_of_the_gpu_check_are_skipped_or_fail_alone(tmp_path: Path) -> None:
    def broken(check: gpu_check.Check) -> None:
        raise RuntimeError("no such kernel")

    check = gpu_check.Check(tmp_path, tiny=True, limit=60)
    check.run("broken", broken)
    check.run("kernel", gpu_check.sweep_kernel)
    check.limit = 0
    check.run("late", broken)
    assert [row["found"] for row in check.rows] == [
        "RuntimeError: no such kernel", "no CUDA device", "0 seconds were over",
    ]  # fmt: skip
