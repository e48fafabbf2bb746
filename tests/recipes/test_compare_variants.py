"""A comparison of variants: its file and mistakes in it, its cells whatever happens to them, its table."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import wandb
import yaml
from helpers.offline_wandb import summary as wandb_summary
from rich.console import Console

from tokenshift.analysis.comparison import report as variant_report
from tokenshift.recipes.compare_variants import main, result_of, run
from tokenshift.recipes.jobs.comparison import cost as comparison_cost
from tokenshift.recipes.jobs.comparison.arguments import CompareJob, prepare
from tokenshift.recipes.jobs.comparison.cells import Scripts, TrainedCell, launcher, shares, steps_of
from tokenshift.recipes.jobs.comparison.child_processes import FOLDER_VARIABLE, Children, end_orphans, working_on
from tokenshift.recipes.jobs.comparison.file import read_comparison
from tokenshift.recipes.jobs.comparison.run import run_comparison
from tokenshift.recipes.jobs.comparison.shipped_variants import SHIPPED
from tokenshift.recipes.jobs.comparison.tracking import log_evaluations
from tokenshift.recipes.jobs.comparison.view import ComparisonView, duration, seconds_left
from tokenshift.trainer import DivergenceGRPOConfig
from tokenshift.trainer.weighting.description import variant_name

ROOT = Path(__file__).parent.parent.parent
FAKE = str(ROOT / "tests" / "helpers" / "fake_recipes.py")
SCRIPTS: Scripts = {"training": [FAKE, "training"], "evaluation": [FAKE, "evaluation"], "recovery": [FAKE, "none"]}

FILE = """\
config: pocket
overrides:
  max_steps: 4
seeds: [0, 1]
baseline: dapo
variants:
  dapo:
  high_kl:
evaluation:
  datasets: [pocket]
  size: 6
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a comparison's file, with lines replaced."""

    def written(*changes: tuple[str, str], text: str = FILE) -> Path:
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return path

    return written


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all else here."""
    monkeypatch.setattr(variant_report, "variant_figures", lambda summary, results: {})


def job_of(path: Path, *more: str) -> CompareJob:
    return prepare(["--config", str(path), "--output_dir", str(path.parent / "out"), *more])


def launches(path: Path) -> list[str]:
    return (path.parent / "out" / "launches.txt").read_text().split("\n")[:-1]


# The file -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size"), [("compare_pocket", (13, 5)), ("compare_pocket_base", (5, 5)), ("compare_smollm2", (3, 2))]
)
def test_shipped_files_are_right(name: str, size: tuple[int, int]) -> None:
    comparison = read_comparison(ROOT / "recipes" / "configs" / f"{name}.yaml")
    assert comparison.baseline == "dapo"
    assert (len(comparison.variants), len(comparison.seeds)) == size
    assert all(variant.overrides == SHIPPED[variant.name] for variant in comparison.variants.values())


def test_shipped_variants_are_those_of_the_question() -> None:
    made = {
        name: DivergenceGRPOConfig(output_dir="x", num_iterations=2, use_cpu=True, bf16=False, **overrides)
        for name, overrides in SHIPPED.items()
    }
    assert {name: variant_name(args) for name, args in made.items()} == {
        "dapo": "none",
        "high_kl": "high_k3",
        "low_kl": "low_k3",
        "high_js_base": "high_js",
        "low_js_base": "low_js",
        "entropy_top20": "none",
        "low_prob": "low_prob",
        "high_kl_shuffle": "high_k3+shuffle",
        "high_kl_mean": "high_k3+mean",
        "high_kl_normalized": "high_k3+normalized",
        "low_kl_shuffle": "low_k3+shuffle",
        "low_kl_mean": "low_k3+mean",
        "low_kl_normalized": "low_k3+normalized",
        "high_js_base_shuffle": "high_js+shuffle",
        "low_js_base_shuffle": "low_js+shuffle",
    }
    assert (made["entropy_top20"].top_entropy_quantile, made["high_js_base"].divergence_reference) == (0.2, "base")


def test_what_a_file_says(write: Callable[..., Path]) -> None:
    text = FILE + "recovery: {budget: 0.05, size: 12}\nlaunch: {config_file: ddp}\nparallel: 2\n"
    mine = "  high_kl: {divergence_alpha: 50}\n  mine: {loss_type: grpo}\n"
    comparison = read_comparison(write(("  high_kl:\n", mine), text=text))
    assert comparison.seeds == [0, 1]
    high = comparison.variants["high_kl"]
    assert high.resolved["divergence_alpha"] == 50.0
    assert high.overrides == {**SHIPPED["high_kl"], "divergence_alpha": 50}
    assert high.training["max_steps"] == 4
    assert high.training["learning_rate"] == 1e-4  # the config's
    assert comparison.variants["mine"].overrides == {"loss_type": "grpo"}
    assert comparison.distinguishing("mine")["loss_type"] == "grpo"
    assert comparison.distinguishing("high_kl") == {"advantage_weighting": "sigmoid", "divergence_alpha": 50.0}
    assert comparison.distinguishing("dapo")["loss_type"] == "dapo"
    assert comparison.recovery is not None
    assert comparison.recovery["budgets"] == [0.05]
    assert comparison.recovery["dataset_name"] == "pocket"
    assert comparison.launch.num_processes == 2
    words = launcher(comparison.launch, parallel=2)
    assert words[1:4] == ["-m", "accelerate.commands.launch", "--config_file"]
    assert words[-2:] == ["--main_process_port", "0"]
    steps = steps_of(TrainedCell(high, 1, Path("cells/high_kl-seed1")), comparison)
    assert [step.name for step in steps] == ["training", "evaluation", "recovery"]
    assert steps[0].command[-2:] == ["--config", "cells/high_kl-seed1/config.yaml"]
    assert steps[1].command[-8:] == [
        *("--model", "cells/high_kl-seed1/model", "--datasets", "pocket", "--size", "6"),
        *("--output_dir", "cells/high_kl-seed1/evaluation"),
    ]


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (("  high_kl:", "  high_kl: {divergence_alfa: 5}"), 8, "'divergence_alfa' is not known; did you mean"),
        (("  high_kl:", "  dapo:"), 8, "'dapo' is there twice, first on line 7"),
        (("  max_steps: 4", "  max_steps: 4\n  max_steps: 5"), 4, "'max_steps' is there twice"),
        (("seeds: [0, 1]\n", ""), 1, "seeds is missing: name at least one"),
        (("[0, 1]", "[]"), 4, "seeds is empty"),
        (("[0, 1]", "[0,\n  1, 0]"), 5, "seeds has 0 twice"),
        (("[0, 1]", "3"), 4, "seeds=3 must be a list of whole numbers"),
        (("[0, 1]", "[-1]"), 4, "seeds has -1, which must be at least 0"),
        (("[0, 1]", "[4294967296]"), 4, "seeds has 4294967296, which must be at least 0 and below 2**32"),
        (("[0, 1]", "[2020-13-45]"), 4, "month must be in 1..12"),
        (("seeds:", "<<: 3\nseeds:"), 1, "expected a mapping or list of mappings for merging"),
        (("  high_kl:", "  mine: {advantage_weighting: none}"), 8, "'mine' trains exactly as 'dapo' does"),
        (("  high_kl:", "  high_kl: {beta: [1, 2]}"), 8, "beta=[1, 2] must be of the type <class 'float'>"),
        (
            ("  datasets: [pocket]", "  datasets: [nowhere.jsonl]"),
            10,
            "datasets='nowhere.jsonl': there is no such file",
        ),
        (("  datasets: [pocket]", "  datasets: [pocket, pocket]"), 10, "datasets names 'pocket' twice"),
        (("seeds:", "launch: {config_file: LICENSE}\nseeds:"), 4, "is not an accelerate config"),
        (("baseline: dapo", "baseline: grpo"), 5, "baseline='grpo' is none of the variants: dapo, high_kl."),
        (("  high_kl:\n", ""), 6, "variants has 'dapo' alone"),
        (("  high_kl:", "  mine:"), 8, "variant 'mine' has no overrides, and is none of the shipped ones"),
        (("  high_kl:", "  a/b: {beta: 0.1}"), 8, "the variant 'a/b' is also the name of a folder"),
        (("  high_kl:", "  high_kl: {seed: 3}"), 8, "variant 'high_kl' sets seed, which the comparison sets"),
        (("  max_steps: 4", "  output_dir: here"), 3, "overrides sets output_dir"),
        (("  high_kl:", "  high_kl: 3"), 8, "variant 'high_kl' must be a mapping of names to values, not 3."),
        (
            (
                "  high_kl:",
                "  same: {beta: 0.1, advantage_weighting: none}\n  two: {advantage_weighting: none, beta: 0.1}",
            ),
            9,
            "as",
        ),
        (("  high_kl:", "  high_kl: {steps_per_generation: 1}"), 8, "variant 'high_kl': divergence_reference='old'"),
        (("  high_kl:", "  high_kl:\n    beta: 0.1\n    loss_type: x"), 10, "variant 'high_kl': loss_type='x' is not"),
        (("  max_steps: 4", "  learning_rate: fast"), 3, "invalid float value: 'fast'"),
        (("config: pocket", "config: poket"), 1, "config='poket' is neither a file nor one of pocket, "),
        (("config: pocket", "konfig: pocket"), 1, "the setting 'konfig' is not known; did you mean config?"),
        (("  size: 6", "  sized: 6"), 11, "the field 'sized' is not known; did you mean size?"),
        (("  size: 6", "  top_p: 7"), 11, "evaluation: top_p=7"),
        (("  size: 6", "  samples: many"), 11, "evaluation: argument --samples: invalid int value: 'many'"),
        (("  datasets: [pocket]\n", ""), 9, "evaluation names no datasets"),
        (("seeds:", "recovery: {size: 5}\nseeds:"), 4, "recovery has no budget"),
        (("seeds:", "recovery: {budget: 2}\nseeds:"), 4, "recovery: budgets has 2.0; shares of tokens lie in (0, 1)"),
        (("seeds:", "parallel: 0\nseeds:"), 4, "parallel=0 must be a whole number of at least 1"),
        (
            ("seeds:", "launch: {config_file: nine}\nseeds:"),
            4,
            "config_file='nine' is neither a file nor one of cpu, ",
        ),
        (("[0, 1]", "[0, 1"), 5, "this is not YAML"),
    ],
)
def test_mistakes_are_named_with_their_line(
    change: tuple[str, str], line: int, said: str, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(change)
    assert main(["--config", str(path), "--output_dir", str(path.parent / "out")], SCRIPTS) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"compare_variants.py: {path}:{line}: "), error
    assert said in error
    assert error.count("\n") == 1
    assert not (path.parent / "out").exists()


def test_batches_are_checked_for_the_processes_of_the_launch(write: Callable[..., Path]) -> None:
    """8 completions of a prompt fit into two processes' batches of 4, not into one's."""
    batches = ("  max_steps: 4", "  max_steps: 4\n  per_device_train_batch_size: 4\n  steps_per_generation: 1")
    weights = ("  high_kl:", "  low_prob:")
    with pytest.raises(ValueError, match=r"generation.batch.size"):
        read_comparison(write(batches, weights))
    launch = ("seeds:", "launch: {config_file: ddp}\nseeds:")
    assert read_comparison(write(batches, weights, launch)).launch.num_processes == 2


# Cells, with recipes that do next to nothing ------------------------------------------------------------------------


def test_a_whole_comparison(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = write()
    arguments = ["--config", str(path), "--output_dir", str(path.parent / "out")]
    assert main(arguments, SCRIPTS) == 0
    out = path.parent / "out"
    printed = capsys.readouterr().out
    assert "high_kl-seed1" in printed
    assert "4 of 4 cells" in printed
    order = ["dapo-seed0", "high_kl-seed0", "dapo-seed1", "high_kl-seed1"]
    assert launches(path) == [f"{cell} {step}" for cell in order for step in ("training", "evaluation")]
    config = yaml.safe_load((out / "cells" / "high_kl-seed1" / "config.yaml").read_text())
    assert (config["seed"], config["run_name"], config["wandb_group"]) == (1, "high_kl-seed1", "mine")
    assert (config["max_steps"], config["divergence_alpha"], config["probe_steps"]) == (4, 100.0, 20)
    summary = json.loads((out / "comparison.json").read_text())
    assert [row["variant"] for row in summary["variants"]] == ["dapo", "high_kl"]
    table = (out / "comparison.md").read_text()
    assert re.search(r"\| high_kl \| \d+\.\d\d ± \d+\.\d\d \| [+-]\d+\.\d\d \[.*\] \| \d\.\d{3} \|", table)
    assert "## What moved" in table
    rows = list(csv.DictReader((out / "comparison.csv").open()))
    assert [(row["variant"], row["seed"]) for row in rows] == [tuple(cell.split("-seed")) for cell in order]
    accuracies = [float(row["accuracy"]) for row in rows if row["variant"] == "high_kl"]
    assert summary["variants"][1]["accuracy"]["value"] == pytest.approx(sum(accuracies) / 2)
    assert not list(out.glob("cells/*/checkpoint-*"))
    assert "--- training, attempt 1" in (out / "cells" / "dapo-seed0" / "log.txt").read_text()

    # again: nothing is done twice, and the table is the same
    before = {name: (out / name).read_bytes() for name in ("comparison.md", "comparison.csv", "comparison.json")}
    assert main(arguments, SCRIPTS) == 0
    assert len(launches(path)) == 8
    assert before == {name: (out / name).read_bytes() for name in before}

    # more seeds and variants: those alone
    more = write(("[0, 1]", "[3, 1]"), ("  high_kl:", "  high_kl:"))
    assert main(["--config", str(more), *arguments[2:]], SCRIPTS) == 0
    assert {line.split()[0] for line in launches(path)[8:]} == {"dapo-seed3", "high_kl-seed3"}


def test_crashed_cells_are_tried_once_more_and_failed_ones_left_behind(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    own = "  shaky: {beta: 0.1}\n  broken: {beta: 0.2}\n  refused: {beta: 0.3}"
    path = write(("  high_kl:", own), ("[0, 1]", "[0]"))
    arguments = ["--config", str(path), "--output_dir", str(path.parent / "out")]
    assert main(arguments, SCRIPTS) == 1
    counts = {cell: launches(path).count(f"{cell}-seed0 training") for cell in ("dapo", "shaky", "broken", "refused")}
    assert counts == {"dapo": 1, "shaky": 2, "broken": 2, "refused": 1}
    printed = capsys.readouterr().out
    assert "2 cells failed" in printed
    assert "- broken-seed0, training: RuntimeError: out of memory at [/INST]" in printed
    assert "- refused-seed0, training: grpo_divweighted.py: learning_rate is not to its liking." in printed
    assert "One seed: there is no interval" in printed
    table = (path.parent / "out" / "comparison.md").read_text()
    assert "| broken | - | - | - | - | 0 |" in table
    assert "- broken-seed0, training" in table
    assert re.search(r"\| shaky \| \d+\.\d\d \| [+-]\d+\.\d\d \| - \| - \| 1 \|", table)
    assert main(arguments, SCRIPTS) == 1  # the failed ones are tried again
    assert launches(path).count("broken-seed0 training") == 4
    assert launches(path).count("dapo-seed0 training") == 1


def test_other_settings_are_refused_or_made_anew(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    one = ("[0, 1]", "[0]")
    path = write(one)
    run(job_of(path), SCRIPTS)
    capsys.readouterr()
    write(one, ("  high_kl:", "  high_kl: {divergence_alpha: 50}"))
    with pytest.raises(ValueError, match=r"the training of the cell high_kl-seed0 was made with divergence_alpha=100"):
        job_of(path)
    run(job_of(path, "--overwrite"), SCRIPTS)
    assert launches(path)[4:] == ["high_kl-seed0 training", "high_kl-seed0 evaluation"]
    write(one, ("  high_kl:", "  high_kl: {divergence_alpha: 50}"), ("size: 6", "size: 5"))
    with pytest.raises(ValueError, match=r"the evaluation of the cell dapo-seed0 was made with size=6, not 5"):
        job_of(path)
    run(job_of(path, "--overwrite"), SCRIPTS)
    assert {line.split()[1] for line in launches(path)[6:]} == {"evaluation"}

    # the same settings in other words, defaults that are written out, and settings on which nothing depends
    write(
        one,
        ("  high_kl:", "  high_kl: {divergence_alpha: 5e+1, report_to: wandb, num_iterations: 1}"),
        ("size: 6", "size: 5\n  temperature: 1"),
        ("evaluation:", "parallel: 2\nevaluation:"),
    )
    job = job_of(path)
    with pytest.raises(ValueError, match=r"is in use by another comparison"):
        job_of(path)
    job.close()


def test_foreign_files_are_left_alone(write: Callable[..., Path]) -> None:
    path = write()
    (path.parent / "out" / "cells" / "dapo-seed0").mkdir(parents=True)
    (path.parent / "out" / "cells" / "dapo-seed0" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"has a cells/dapo-seed0 that no comparison made"):
        job_of(path, "--overwrite")
    assert (path.parent / "out" / "cells" / "dapo-seed0" / "thesis.txt").exists()
    mine = path.parent / "paper" / "figures" / "mine.svg"
    mine.parent.mkdir(parents=True)
    mine.write_text("drawn by hand")
    with pytest.raises(ValueError, match=r"paper' has a figures that no comparison made"):
        prepare(["--config", str(path), "--output_dir", str(path.parent / "paper"), "--overwrite"])
    assert mine.exists()


def test_settings_that_are_not_fields_are_compared_too(write: Callable[..., Path]) -> None:
    """The number of processes, of which batches are made, and what the problems are."""
    one, data = ("[0, 1]", "[0]"), write().parent / "mine.jsonl"
    lines = [json.dumps({"prompt": f"{number} + 1 = ?", "solution": str(number + 1)}) for number in range(8)]
    data.write_text("\n".join(lines[:6]))
    changes = [one, ("datasets: [pocket]\n  size: 6", f"datasets: {data}")]
    job = job_of(write(*changes))
    run(job, SCRIPTS)
    job.close()
    with pytest.raises(
        ValueError, match=r"the training of the cell dapo-seed0 was made with num_processes=None, not 2"
    ):
        job_of(write(*changes, ("seeds:", "launch: {config_file: ddp}\nseeds:")))
    settings = job.cells[0].folder / "evaluation" / "settings.json"
    settings.write_text(json.dumps({"parts": job.comparison.contents}))
    job_of(write(*changes, ("evaluation:", "evaluation:\n  resamples: 5"))).close()  # no verdict depends on it
    data.write_text("\n".join(lines[2:]))
    with pytest.raises(ValueError, match=r"the evaluation of the cell dapo-seed0 was made with other problems in the"):
        job_of(write(*changes))


def test_problems_that_are_trained_on_are_refused(write: Callable[..., Path]) -> None:
    data = write().parent / "mine.jsonl"
    data.write_text("\n".join(json.dumps({"prompt": f"{n} + 1 = ?", "solution": str(n + 1)}) for n in range(100)))
    mine = ("  max_steps: 4", f"  max_steps: 4\n  dataset_name: {data}\n  eval_size: 20")
    with pytest.raises(ValueError, match=r":11: evaluation: 44 of the 64 problems of .* are trained on"):
        job_of(write(mine, ("datasets: [pocket]\n  size: 6", f"datasets: [{data}]\n  size: 64")))
    job_of(write(mine, ("datasets: [pocket]\n  size: 6", f"datasets: [{data}]\n  size: 20"))).close()


def test_recovery_reads_the_evaluations_problems_and_starts_from_the_cells_model(write: Callable[..., Path]) -> None:
    data = write().parent / "mine.jsonl"
    data.write_text(json.dumps({"question": "1 + 1 = ?", "answer": "2"}))
    asked = f"datasets: [{data}]\n  prompt_column: [question]\n  solution_column: [answer]\nrecovery: {{budget: 0.1}}"
    other = ("  high_kl:", "  high_kl: {model_name_or_path: org/other, model_revision: v2}")
    job = job_of(write(other, ("datasets: [pocket]\n  size: 6", asked)))
    words = [" ".join(steps_of(cell, job.comparison)[2].command) for cell in job.cells[:2]]
    assert all("--prompt_column question --solution_column answer" in each for each in words)
    assert ["--base_model pocket " in words[0], "--base_model org/other@v2 " in words[1]] == [True, True]
    job.close()
    unsolved = asked.replace("[answer]", "[none]\n  reward_func: format_reward")
    job = job_of(write(other, ("datasets: [pocket]\n  size: 6", unsolved)))
    words = [" ".join(steps_of(cell, job.comparison)[2].command) for cell in job.cells[:1]]
    assert "--solution_column none --reward_func format_reward" in words[0]


def test_a_damaged_cell_does_not_stop_the_others(
    write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write()
    arguments = ["--config", str(path), "--output_dir", str(path.parent / "out")]
    assert main(arguments, SCRIPTS) == 0
    cells = path.parent / "out" / "cells"
    (cells / "dapo-seed0" / "evaluation" / "responses" / "pocket.parquet").write_bytes(b"PAR1 half")
    (cells / "dapo-seed1" / "shift" / "step_000004.parquet").write_bytes(b"PAR1 half")
    (cells / "high_kl-seed1" / "summary.json").write_text("{")
    assert main(arguments, SCRIPTS) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "responses/pocket.parquet is damaged" in printed
    assert "step_000004.parquet is damaged" in printed
    assert launches(path)[8:] == ["high_kl-seed1 training"]
    (cells / "dapo-seed0" / "cell.json").write_text("{")
    assert main(arguments, SCRIPTS) == 2
    assert "dapo-seed0/cell.json is damaged; delete the folder" in capsys.readouterr().err


def test_a_trainings_servants_outlive_it(tmp_path: Path) -> None:
    """Without its verification workers an orphaned training could not end with a checkpoint."""
    child = "import time; time.sleep(60)"
    parent = (
        "import pathlib, signal, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "def end(*_):\n"
        "    time.sleep(0.3)\n"
        "    pathlib.Path('served').write_text(str(child.poll()))\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path('ready').touch()\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, FOLDER_VARIABLE: str(tmp_path.resolve())}
    training = subprocess.Popen([sys.executable, "-c", parent], cwd=tmp_path, env=environment)
    while not (tmp_path / "ready").exists():
        assert training.poll() is None
        time.sleep(0.01)
    assert len(working_on(tmp_path)) == 2
    assert end_orphans(tmp_path) == 2
    assert (tmp_path / "served").read_text() == "None"
    training.wait()
    assert not working_on(tmp_path)


def test_not_launched_by_accelerate_itself(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"start it with plain python"):
        job_of(write())


def test_dry_run_shows_cells_and_their_cost(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = write(("  max_steps: 4", "  max_steps: 400"))
    assert main(["--config", str(path), "--output_dir", str(path.parent / "out"), "--dry_run"], SCRIPTS) == 0
    printed = capsys.readouterr().out
    assert "4 cells" in printed
    assert "Estimate, from 8 updates of dapo: 0.10 s an update x 400" in " ".join(printed.split())
    assert not (path.parent / "out").exists()


def test_updates_of_epochs() -> None:
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 16, "num_generations": 8}
    args = DivergenceGRPOConfig(use_cpu=True, bf16=False, advantage_weighting="none", **settings)
    variant: Any = type("Variant", (), {"args": args})
    comparison: Any = type("Comparison", (), {"variants": {"dapo": variant}, "baseline": "dapo"})
    comparison.launch = type("Launch", (), {"num_processes": 4})
    assert comparison_cost._updates(comparison, "data  pocket, 2,048 training and 8 held-out problems") == 512


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_stops_what_it_started(number: signal.Signals, write: Callable[..., Path]) -> None:
    path = write(("  high_kl:", "  hangs: {beta: 0.1}"), ("[0, 1]", "[0]"))
    job = job_of(path)
    console = Console(file=io.StringIO())
    hanging = job.cells[1]

    def send() -> None:
        while hanging.updates() is None:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()
    with pytest.raises(KeyboardInterrupt):
        run_comparison(job.cells, job.comparison, lambda folder: 0.5, console, SCRIPTS)
    assert not working_on(hanging.folder)
    assert [cell.phase for cell in job.cells] == ["done", "waiting"]
    run_comparison(job.cells, job.comparison, lambda folder: 0.5, console, SCRIPTS)
    assert launches(path).count("hangs-seed0 training") == 2
    assert launches(path).count("dapo-seed0 training") == 1
    job.close()


@pytest.mark.slow
def test_orphans_of_a_killed_comparison_are_ended(forked: list[str], write: Callable[..., Path]) -> None:
    path = write(("  high_kl:", "  hangs: {beta: 0.1}"), ("[0, 1]", "[0]"))
    program = path.parent / "compare.py"
    program.write_text(
        "import sys\nfrom tokenshift.recipes.compare_variants import main\n"
        f"sys.exit(main(['--config', {str(path)!r}, '--output_dir', {str(path.parent / 'out')!r}], {SCRIPTS!r}))\n"
    )
    killed = subprocess.Popen([sys.executable, *forked, str(program)], stdout=subprocess.DEVNULL)
    cell = path.parent / "out" / "cells" / "hangs-seed0"
    while not (cell / "log.txt").is_file() or "update 2/4" not in (cell / "log.txt").read_text():
        assert killed.poll() is None
        time.sleep(0.02)
    with pytest.raises(ValueError, match=r"is in use by another comparison, process \d+ on the host \S+; wait"):
        job_of(path)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (orphan,) = working_on(cell)
    job = job_of(path)
    run(job, SCRIPTS)
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    assert job.cells[1].phase == "done"
    assert end_orphans(cell) == 0


def test_children_are_killed_at_once(tmp_path: Path) -> None:
    children = Children()
    stubborn = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    )
    log = tmp_path / "log.txt"
    status: list[Any] = []

    def work() -> None:
        try:
            children.run([sys.executable, "-c", stubborn], tmp_path, log, {})
        except Exception as error:
            status.append(type(error).__name__)

    thread = threading.Thread(target=work)
    thread.start()
    while not log.is_file() or not log.read_text():
        time.sleep(0.01)
    assert children.stop() == 1
    assert thread.is_alive()
    children.kill()
    thread.join(10)
    assert status == ["Stopped"]


def test_shares_of_threads_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert shares(1) == [{}]
    assert shares(3) == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert [each["CUDA_VISIBLE_DEVICES"] for each in shares(2)] == ["4,5", "6,7"]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in shares(4)] == ["4", "5", "6", "7"]


def test_live_table(write: Callable[..., Path]) -> None:
    cells = job_of(write()).cells
    for cell in cells[:3]:
        cell.folder.mkdir(parents=True)
    (cells[0].folder / "cell.json").write_text(json.dumps({"seconds": {"training": 90, "evaluation": 10}}))
    cells[0].enter("done")
    cells[0].accuracy = 0.8312
    cells[1].enter("training")
    cells[1].log.write_text("--- training\nupdate 1/4  reward 0.5\nupdate 2/4  reward 0.5\n")
    cells[2].enter("failed")
    console = Console(force_terminal=True, width=80, record=True, file=io.StringIO())
    console.print(ComparisonView(cells, 1, console).table())
    shown = console.export_text()
    assert re.search(r"dapo\s+0\.831\s+failed", shown)
    assert re.search(r"high_kl\s+2/4\s+·", shown)
    assert "1 of 4 cells" in shown
    assert seconds_left(cells, 1) == pytest.approx(200, abs=2)
    assert (duration(59.6), duration(61), duration(3720)) == ("1 min 00 s", "1 min 01 s", "1 h 02 min")


# The real recipes ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """What stands before a recipe's path to launch it without its imports."""
    helper = str(ROOT / "tests" / "helpers" / "forked_recipes.py")
    address = str(tmp_path_factory.mktemp("socket") / "s")
    server = subprocess.Popen(
        [sys.executable, helper, "serve", address, "grpo_divweighted", "evaluate", "compare_variants"],
        stdin=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")},
    )
    while not Path(address).exists():
        assert server.poll() is None
        time.sleep(0.05)
    yield [helper, "run", address]
    assert server.stdin is not None
    server.stdin.close()
    server.wait(30)


REAL = """\
config: pocket
overrides:
  {model_name_or_path: MODEL, max_steps: 2, steps_per_generation: 2, per_device_train_batch_size: 8,
  num_generations: 4, train_size: 24, learning_rate: 1.0e-2, eval_size: 2, max_completion_length: 24, save_steps: 1,
  logging_steps: 1, probe_steps: 0, probe_size: 2, report_to: none, reward_funcs: [helpers.tiny_training.digit_reward]}
seeds: [0, 1]
baseline: dapo
variants:
  dapo:
  mine: {learning_rate: 3.0e-2}
evaluation:
  {datasets: [pocket], size: 8, samples: 2, top_p: 1.0, max_new_tokens: 24,
  reward_func: helpers.tiny_training.even_digits}
"""


@pytest.mark.slow
def test_killed_twice_it_ends_with_the_table_of_an_undisturbed_one(
    forked: list[str], write: Callable[..., Path], tiny_model: str, tmp_path: Path
) -> None:
    path = write(("MODEL", tiny_model), text=REAL)
    program = tmp_path / "compare.py"
    program.write_text(
        "import sys\nfrom tokenshift.recipes.compare_variants import main\n"
        "from tokenshift.recipes.jobs.comparison.cells import SCRIPTS\n"
        f"scripts = {{name: [*{forked!r}, *words] for name, words in SCRIPTS.items()}}\n"
        "sys.exit(main(sys.argv[1:], scripts))\n"
    )

    def start(out: str, *more: str) -> subprocess.Popen[str]:
        words = [str(program), "--config", str(path), "--output_dir", str(tmp_path / out), *more]
        return subprocess.Popen(
            [sys.executable, *forked, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    undisturbed = start("undisturbed", "--parallel", "2")
    output, _ = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, output

    for sign in ("cells/dapo-seed0/checkpoint-1", "cells/dapo-seed1/evaluation"):
        killed = start("killed")
        while not (tmp_path / "killed" / sign).exists():
            assert killed.poll() is None, killed.communicate()[0]
            time.sleep(0.005)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert not (tmp_path / "killed" / "comparison.md").exists()
    last = start("killed")
    output, _ = last.communicate(timeout=300)
    assert last.returncode == 0, output
    for name in ("comparison.md", "comparison.csv", "comparison.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes(), name
    found = json.loads((tmp_path / "killed" / "comparison.json").read_text())["variants"]
    assert all(0 < row["accuracy"]["value"] < 1 and row["js_p99"]["value"] > 0 for row in found)
    assert found[1]["js_p99"]["value"] != found[0]["js_p99"]["value"]  # it is of two trainings


@pytest.mark.slow
def test_evaluation_goes_into_the_trainings_wandb_run(write: Callable[..., Path]) -> None:
    job = job_of(write(("[0, 1]", "[0]")))
    run(job, SCRIPTS)
    cell = job.cells[0]
    (cell.folder / "wandb_run_id.txt").write_text("abcd1234\n")
    log_evaluations(job.cells, [result_of(each) for each in job.cells])
    assert wandb.run is None
    (file,) = cell.folder.glob("wandb/offline-run-*-abcd1234/*.wandb")
    assert wandb_summary(file)["evaluation/accuracy"] == pytest.approx(cell.accuracy)
    log_evaluations(job.cells, [result_of(each) for each in job.cells])
    assert len(list(cell.folder.glob("wandb/offline-run-*"))) == 1
