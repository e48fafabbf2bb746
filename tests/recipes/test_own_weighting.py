"""A weighting and a divergence of one's own, in a file of an empty folder, through the training recipe."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.launched_recipes import ROOT

from tokenshift.recipes.jobs.training.arguments import parse_arguments
from tokenshift.recipes.jobs.training.preparation import prepare

FILE = """\
import torch
from tokenshift.trainer import register_divergence, register_weighting

@register_weighting(formula="w = 1 + c * tanh(JS / t)", needs=("js",))
def saturated(tokens, *, c: float = 0.5, t: float = 0.05):
    return 1 + c * torch.tanh(tokens.js / t)

@register_divergence(formula="D = |exp(d) - 1|, d = log pi_theta - log pi_old")
def ratio_distance(logps, old_logps):
    return torch.expm1(logps - old_logps).abs()
"""
REWARD = (
    "def digits(completions, **columns):\n    return [float(sum(map(str.isdigit, text))) for text in completions]\n"
)
FORMULA = "w = 1 + c * tanh(JS / t), against old, c = 1, t = 0.05"
DIVERGENCE = "ratio_distance: D = |exp(d) - 1|, d = log pi_theta - log pi_old"


def launch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "recipes" / "grpo_divweighted.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "300"},
    )


def stamps() -> dict[str, int]:
    """When each file of the project was changed last."""
    rooms = ("analysis", "trainer", "rewards", "recipes")
    files = [file for room in rooms for file in (ROOT / room).rglob("*") if "__pycache__" not in file.parts]
    return {str(file): file.stat().st_mtime_ns for file in files if file.is_file()}


@pytest.mark.slow
def test_named_by_plan_summary_and_card_without_a_change_to_the_project(tmp_path: Path, tiny_model: str) -> None:
    (tmp_path / "my_weights.py").write_text(FILE)
    (tmp_path / "my_reward.py").write_text(REWARD)  # a random model answers nothing right
    assert sum(bool(line.strip()) for line in FILE.splitlines()) == 8
    before = stamps()
    quick = ["--max_steps", "2", "--steps_per_generation", "2", "--per_device_train_batch_size", "4"]
    quick += ["--num_generations", "4", "--max_completion_length", "8", "--eval_size", "4", "--train_size", "16"]
    quick += ["--report_to", "none", "--logging_steps", "1", "--save_steps", "2", "--learning_rate", "1e-2"]
    run = launch(
        tmp_path,
        *("--model_name_or_path", tiny_model, "--output_dir", "out", *quick),
        *("--advantage_weighting", "my_weights.saturated", "--weighting_options", '{"c": 1.0}'),
        *("--divergence", "my_weights.ratio_distance", "--reward_funcs", "my_reward.digits"),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert stamps() == before
    left = sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__")
    assert left == ["my_reward.py", "my_weights.py", "out"]

    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["variant"], summary["weighting"]) == ("saturated", FORMULA)
    assert summary["divergence"] == DIVERGENCE
    plan = " ".join(run.stdout.split())
    card = (tmp_path / "out" / "README.md").read_text()
    for text in (plan, card):
        assert "saturated" in text
        assert FORMULA in text
        assert DIVERGENCE in text.replace(r"\|", "|")
        assert "sigmoid" not in text
    logs = json.loads((tmp_path / "out" / "log_history.json").read_text())
    first, second = (log for log in logs if "advantage_weight/max" in log)
    assert first["advantage_weight/max"] == pytest.approx(1, abs=1e-3)  # the policy has not moved yet
    assert 1.01 < second["advantage_weight/max"] <= 2
    assert second["divergence/max"] > 1e-3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--advantage_weighting", "my_weights.saturate"], "has no saturate; did you mean saturated?"),
        (["--advantage_weighting", "my_weights.saturated", "--weighting_options", '{"k": 1}'], "takes c, t."),
    ],
)
def test_a_mistake_ends_in_one_line_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("my_weights", None)
    (tmp_path / "my_weights.py").write_text(FILE)
    with pytest.raises(ValueError, match=r"saturated") as error:
        prepare(arguments)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_config_has_options_as_a_mapping_and_the_command_line_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("my_weights", None)
    (tmp_path / "my_weights.py").write_text(FILE)
    settings = "model_name_or_path: pocket\nadvantage_weighting: my_weights.saturated\nnum_iterations: 2\n"
    (tmp_path / "mine.yaml").write_text(settings + "weighting_options: {c: 0.25}\n")
    given = ["--config", "mine.yaml"]
    assert parse_arguments(given)[1].weighting_values == {"c": 0.25, "t": 0.05}
    given += ["--weighting_options", '{"t": 0.5}']
    assert parse_arguments(given)[1].weighting_values == {"c": 0.5, "t": 0.5}
