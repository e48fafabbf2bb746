"""The `tokenshift` command: which script runs, how it is launched, and what it leaves of the user's world."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tokenshift.recipes.command_line import command
from tokenshift.recipes.command_line.command import main, split_launch
from tokenshift.recipes.command_line.commands import COMMANDS
from tokenshift.recipes.command_line.config_files import (
    CONFIGS,
    LAUNCH_CONFIGS,
    config_file,
    config_names,
    launch_config,
    launch_config_names,
    with_config_file,
)

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "tokenshift.recipes.command_line.command"]


def test_every_script_is_a_command_and_listed() -> None:
    scripts = {path.name for path in (ROOT / "recipes").glob("*.py")} - {"__init__.py"}
    assert {entry.script.name for entry in COMMANDS.values() if entry.arguments} == scripts
    listed = (ROOT / "recipes" / "README.md").read_text()
    for name, entry in COMMANDS.items():
        assert f"`tokenshift {name}`" in listed
        assert not entry.arguments or f"`{entry.script.name}`" in listed


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_without_a_command_all_are_listed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tokenshift ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evalute"], "'evalute' is no command; did you mean evaluate?"),
        (["zzz"], "'zzz' is no command; known are train, shift"),
        (["train", "--launch", "dpd"], "--launch 'dpd' is neither a file nor one of cpu, ddp"),
        (["train", "--launch"], "--launch '' is neither a file"),
        (["train", "--num_processes", "2"], "--num_processes is for accelerate launch; give --launch too."),
        (["compare", "--launch", "ddp"], "compare takes no --launch: it launches its trainings itself"),
        (["env", "--launch=ddp"], "env takes no --launch"),
        (
            ["train", "--launch", "ddp", "--num_processes", "x"],
            "--num_processes 'x' must be a whole number of at",
        ),
        (["train", "--launch", "ddp", "--num_processes=0"], "--num_processes '0' must be a whole number"),
        (["train", "--launch", "ddp", "--num_processes"], "--num_processes '' must be a whole number"),
        (
            ["train", "--launch", "ddp", "--machine_rank", "-1"],
            "--machine_rank '-1' must be a whole number of at",
        ),
        (["train", "--launch", "ddp", "--main_process_ip"], "--main_process_ip needs a value"),
    ],
)
def test_mistakes(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.splitlines()) == 1


def test_the_module_runs_with_the_words_and_its_status_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def run(words: list[str]) -> int:
        seen.extend([words, list(sys.argv)])
        return 7

    monkeypatch.setattr(command, "import_module", lambda name: seen.append(name) or SimpleNamespace(main=run))
    monkeypatch.setattr(sys, "argv", ["tokenshift"])
    assert main(["evaluate", "--samples", "2"]) == 7
    script = str(ROOT / "recipes" / "evaluate.py")
    assert seen == ["tokenshift.recipes.evaluate", ["--samples", "2"], [script, "--samples", "2"]]

    def interrupted(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "import_module", lambda name: SimpleNamespace(main=interrupted))
    assert main(["evaluate"]) == 130


def test_a_launch_becomes_accelerates(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[list[str]] = []

    def execute(program: str, words: list[str]) -> None:
        launched.append([program, *words])
        raise SystemExit

    monkeypatch.setattr(os, "execv", execute)
    words = ["train", "--max_steps", "2", "--launch", "ddp", "--num_processes=4", "--output_dir", "o"]
    with pytest.raises(SystemExit):
        main(words)
    config = str(LAUNCH_CONFIGS / "ddp.yaml")
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config, "--num_processes", "4"]
    script = str(ROOT / "recipes" / "grpo_divweighted.py")
    assert launched == [[sys.executable, *accelerate, script, "--max_steps", "2", "--output_dir", "o"]]
    assert main([*words, "--max_stepz", "2"]) == 2  # before anything is launched
    assert split_launch("train", ["--a", "1"]) == ([], ["--a", "1"])


def test_configs_go_by_path_or_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_file("pocket") == config_file("pocket.yaml") == CONFIGS / "pocket.yaml"
    assert config_file(str(CONFIGS / "pocket.yaml")) == CONFIGS / "pocket.yaml"
    assert with_config_file(["--a", "--config=pocket"]) == ["--a", "--config", str(CONFIGS / "pocket.yaml")]
    Path("pocket.yaml").write_text("max_steps: 1\n")
    assert config_file("pocket.yaml") == Path("pocket.yaml")  # the user's own goes first
    assert launch_config("ddp") == launch_config("ddp.yaml") == LAUNCH_CONFIGS / "ddp.yaml"
    Path("mine.yaml").write_text("{}")
    assert launch_config("mine.yaml") == Path("mine.yaml")
    assert config_names("compare_*") == [
        "compare_pocket",
        "compare_pocket_base",
        "compare_pocket_dose",
        "compare_smollm2",
    ]
    for name in launch_config_names():
        assert "num_processes" in yaml.safe_load(launch_config(name).read_text())
    for wrong in ("dir/pocket", "", "."):
        with pytest.raises(ValueError, match="is not a file"):
            config_file(wrong)


def in_empty_folder(folder: Path, words: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **environment},
    )


USERS = """
import importlib.util
spec = importlib.util.find_spec("evaluate")
print("evaluate:", spec.origin if spec else None)
import models

def mine(completions, **columns):
    return [models.VALUE for _ in completions]

gone = mine
del gone  # so that only an import shows that it is not there
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["script", "launched", "command"])
def test_a_users_modules_are_not_hidden(way: str, tmp_path: Path) -> None:
    """`data.py` and `models.py` are names that recipes/ had or has in some folder; `evaluate` is a script of it."""
    (tmp_path / "data.py").write_text(USERS)
    (tmp_path / "models.py").write_text("VALUE = 1.0\n")
    script = str(ROOT / "recipes" / "grpo_divweighted.py")
    start = {
        "script": [sys.executable, script],
        "launched": [*COMMAND, "train", "--launch", "cpu"],
        "command": [*COMMAND, "train"],
    }[way]
    run = in_empty_folder(tmp_path, [*start, "--reward_funcs", "data.mine", "data.gone"])
    assert "'data.gone'" in run.stderr, run.stderr
    assert "'data.mine'" not in run.stderr.splitlines()[0]
    assert run.returncode in (1, 2)  # 1 is accelerate's
    assert "evaluate: None" in run.stdout or "site-packages" in run.stdout, run.stdout


@pytest.mark.slow
def test_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    words = [*COMMAND, "train", "--max_steps", "500", "--eval_size", "8", "--report_to", "none"]
    run = subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ}
    )
    deadline = time.monotonic() + 200
    assert run.stdout is not None
    for line in run.stdout:
        assert time.monotonic() < deadline
        if "outputs/pocket" in line:  # the plan: the work has begun, training has not
            break
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=200)
    assert run.returncode in (0, 130), output  # 0: a training that was stopped ends with a checkpoint
    assert "Traceback" not in output
