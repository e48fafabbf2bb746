"""A comparison of variants from end to end: its cells whatever happens to them, its table."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from helpers.forked_recipes import served
from helpers.small_comparison import SCRIPTS, job_of, launches

from tokenshift.analysis.storage.folder_lock import HOLDER_FILE
from tokenshift.recipes.command_line.child_processes import end_orphans, working_on
from tokenshift.recipes.compare_variants import main, run

pytestmark = pytest.mark.usefixtures("without_figures")

# Recipes that do next to nothing ------------------------------------------------------------------------------------


def test_a_whole_comparison(
    write_comparison: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    reported: list[tuple[int, dict[str, float]]],
) -> None:
    path = write_comparison()
    arguments = ["--config", str(path), "--output_dir", str(path.parent / "out")]
    assert main(arguments, SCRIPTS) == 0
    out = path.parent / "out"
    printed = capsys.readouterr().out
    assert "high_kl-seed1" in printed
    assert "4 of 4 cells" in printed
    order = ["dapo-seed0", "high_kl-seed0", "dapo-seed1", "high_kl-seed1"]
    assert launches(path) == [f"{cell} {step}" for cell in order for step in ("training", "evaluation")]
    config = yaml.safe_load((out / "cells" / "high_kl-seed1" / "training.yaml").read_text())
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
    assert not reported
    assert main([*arguments, "--report_to", "comet_ml"], SCRIPTS) == 0
    assert len(launches(path)) == 8
    ((update, numbers),) = reported
    difference = summary["variants"][1]["accuracy"]["difference"]
    assert (update, numbers["comparison/high_kl/difference/accuracy_high"]) == (0, difference["high"])
    assert before == {name: (out / name).read_bytes() for name in before}

    # more seeds and variants: those alone
    more = write_comparison(("[0, 1]", "[3, 1]"), ("  high_kl:", "  high_kl:"))
    assert main(["--config", str(more), *arguments[2:]], SCRIPTS) == 0
    assert {line.split()[0] for line in launches(path)[8:]} == {"dapo-seed3", "high_kl-seed3"}


def test_crashed_cells_are_tried_once_more_and_failed_ones_left_behind(
    write_comparison: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    own = "  shaky: {beta: 0.1}\n  broken: {beta: 0.2}\n  refused: {beta: 0.3}"
    path = write_comparison(("  high_kl:", own), ("[0, 1]", "[0]"))
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


def test_a_damaged_cell_does_not_stop_the_others(
    write_comparison: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_comparison()
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


def test_dry_run_shows_cells_and_their_cost(
    write_comparison: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_comparison(("  max_steps: 4", "  max_steps: 400"))
    assert main(["--config", str(path), "--output_dir", str(path.parent / "out"), "--dry_run"], SCRIPTS) == 0
    printed = capsys.readouterr().out
    assert "4 cells" in printed
    assert "Estimate, from 8 updates of dapo: 0.10 s an update x 400" in " ".join(printed.split())
    assert not (path.parent / "out").exists()


@pytest.mark.slow
def test_orphans_of_a_killed_comparison_are_ended(forked: list[str], write_comparison: Callable[..., Path]) -> None:
    path = write_comparison(("  high_kl:", "  hangs: {beta: 0.1}"), ("[0, 1]", "[0]"))
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
    holder = psutil.Process(json.loads((path.parent / "out" / HOLDER_FILE).read_text())["process"])
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    psutil.wait_procs([holder], timeout=60)  # the forked process ends a moment after its launcher
    (orphan,) = working_on(cell)
    job = job_of(path)
    run(job, SCRIPTS)
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    assert job.cells[1].phase == "done"
    assert end_orphans(cell) == 0


# The real recipes ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The words before a recipe's path that launch it without its imports."""
    with served(tmp_path_factory.mktemp("socket"), "grpo_divweighted", "evaluate", "compare_variants") as words:
        yield words


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
    forked: list[str], write_comparison: Callable[..., Path], tiny_model: str, tmp_path: Path
) -> None:
    path = write_comparison(("MODEL", tiny_model), text=REAL)
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
