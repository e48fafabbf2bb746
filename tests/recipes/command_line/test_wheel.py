"""The wheel, unpacked outside the checkout, is enough: the command starts everything by name from an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "accelerate_configs", "analysis", "recipes", "rewards", "trainer")
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"

COMPARISON = """
config: pocket
overrides: {max_steps: 2, eval_size: 8, per_device_train_batch_size: 8, max_completion_length: 16, probe_steps: null,
            report_to: none}
seeds: [0]
baseline: dapo
variants: {dapo: {}, low_kl: {}}
evaluation: {datasets: [pocket], size: 4, samples: 1, max_new_tokens: 16}
launch: {config_file: ddp}
output_dir: compared
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's contents."""
    folder = tmp_path_factory.mktemp("wheel")
    copy, built, site = folder / "copy", folder / "built", folder / "site"
    copy.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    run = subprocess.run(
        [sys.executable, "-c", BUILD, str(built)], cwd=copy, capture_output=True, text=True, check=False
    )
    if run.returncode and "setuptools" in run.stderr.splitlines()[-1]:
        pytest.skip(f"the wheel cannot be built here: {run.stderr.splitlines()[-1]}")
    assert run.returncode == 0, run.stderr
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    return site


def tokenshift(site: Path, folder: Path, *words: str) -> str:
    """The output of a command that runs from the wheel's contents in a folder."""
    run = subprocess.run(
        [sys.executable, "-m", "tokenshift.recipes.command_line.command", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=500,
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.slow
def test_the_wheel_holds_what_is_started_by_name(site: Path) -> None:
    held = {path.relative_to(site / "tokenshift") for path in (site / "tokenshift").rglob("*") if path.is_file()}
    for folder in ("accelerate_configs", "recipes/configs", "recipes/pocket/base"):
        files = {path.relative_to(ROOT) for path in (ROOT / folder).iterdir() if path.is_file()}
        assert files
        assert files <= held
    sources = {
        path.relative_to(ROOT)
        for room in ("analysis", "recipes", "rewards", "trainer")
        for path in (ROOT / room).rglob("*.py")
    }
    assert sources <= held
    entry_points = next(site.glob("*.dist-info/entry_points.txt")).read_text()
    assert "tokenshift = tokenshift.recipes.command_line.command:main" in entry_points


@pytest.mark.slow
@pytest.mark.distributed
def test_everything_runs_outside_a_checkout(site: Path, tmp_path: Path) -> None:
    (tmp_path / "X.yaml").write_text(COMPARISON)
    where = "import tokenshift.recipes.command_line.command as module; print(module.__file__)"
    run = subprocess.run(
        [sys.executable, "-c", where],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    assert Path(run.stdout.strip()).is_relative_to(site)  # and not the checkout's
    quick = ["--max_steps", "2", "--eval_size", "8", "--per_device_train_batch_size", "8", "--report_to", "none"]
    quick += ["--max_completion_length", "16", "--save_strategy", "no", "--probe_size", "4"]
    tokenshift(site, tmp_path, "train", "--config", "pocket", *quick, "--output_dir", "trained")
    assert json.loads((tmp_path / "trained" / "summary.json").read_text())["updates"] == 2
    few = ["--size", "4", "--max_new_tokens", "16", "--resamples", "10"]
    tokenshift(site, tmp_path, "shift", "--rl_model", "trained/model", *few, "--output_dir", "shifted")
    assert (tmp_path / "shifted" / "report.html").is_file()
    planned = tokenshift(site, tmp_path, "compare", "--config", "X.yaml", "--dry_run")
    assert "2 cells" in planned
    assert "Estimate, from" in planned  # it trained for a few updates, by the wheel's ddp.yaml
