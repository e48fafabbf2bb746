"""`--dry_run` prints the plan of a training, for any number of processes, and loads nothing."""

import re
from pathlib import Path

import pytest
from rich.console import Console

from tokenshift.recipes.command_line import plan_view
from tokenshift.recipes.command_line.dry_run import is_dry_run, with_planned_launch
from tokenshift.recipes.jobs.training.arguments import parse_arguments
from tokenshift.recipes.jobs.training.dry_run import prepare_plan, show_plan, verdict

PAPER = ["--dry_run", "--config", "qwen2.5_math_7b_dapo", "--report_to", "none"]


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["--dry_run"], True),
        (["--dry_run", "--config", "x"], True),
        (["--dry-run=true"], True),
        (["--dry_run", "false"], False),
        (["--config", "x"], False),
    ],
)
def test_a_plan_is_asked_for(words: list[str], asked: bool) -> None:
    assert is_dry_run(words) == asked


def test_the_launchers_options_become_the_plans() -> None:
    words = ["--launch=zero3", "--num_processes", "32", "--dry_run"]
    assert with_planned_launch("train", words) == ["--plan_launch=zero3", "--plan_processes", "32", "--dry_run"]
    assert with_planned_launch("train", words[:3]) == words[:3]
    assert with_planned_launch("compare", words) == words


@pytest.fixture
def model_of_seven_billion(tmp_path: Path) -> str:
    """A folder with Qwen2.5-Math-7B's config and nothing else."""
    (tmp_path / "config.json").write_text(
        '{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3584,'
        ' "intermediate_size": 18944,'
        ' "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,'
        ' "max_position_embeddings": 16384, "tie_word_embeddings": false, "rope_theta": 40000.0}'
    )
    return str(tmp_path)


@pytest.mark.parametrize("processes", [32, 8])
def test_the_papers_run(
    model_of_seven_billion: str, processes: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    accumulation = 512 // processes
    launch = ["--plan_launch", "zero3", "--plan_processes", str(processes), "--plan_machines", str(processes // 8)]
    reference = ["--divergence", "js", "--divergence_reference", "base"]
    more = ["--gradient_accumulation_steps", str(accumulation), "--model_name_or_path", model_of_seven_billion]
    job = prepare_plan([*PAPER, *launch, *reference, *more])
    assert round(job.parameters / 1e9, 2) == 7.62
    by_name = {part.name: part.size for part in job.plan.parts}
    rows = 8192 // processes
    assert job.plan.updates_per_generation == 16
    assert by_name["weights"] == job.parameters * 2 // processes
    assert by_name["optimizer"] == job.parameters * 12 // processes
    assert by_name["rollout engine"] == int(0.6 * 80 * 2**30)
    states = rows * 8192 * 3584 * 2
    if processes == 32:
        assert by_name["reference's states"] == states == 14 * 2**30
    else:
        assert "reference's states" not in by_name, "56 GiB are made anew"
    assert job.plan.fits
    monkeypatch.setattr(plan_view, "console", Console(width=160))
    show_plan(job)
    shown = capsys.readouterr().out
    assert f"{processes} GPUs" in shown
    assert "a GPU of 80 GiB: fits" in shown


def test_what_does_not_fit_says_what_to_change(model_of_seven_billion: str) -> None:
    given = ["--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "512", "--bf16", "true"]
    job = prepare_plan([*PAPER, "--plan_launch", "single_gpu", "--model_name_or_path", model_of_seven_billion, *given])
    lines = verdict(job.plan, job.args)
    assert not job.plan.fits
    assert any("does not fit: the phase" in line for line in lines)
    assert any(line.startswith("change: optimizer") and "--launch zero2" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dry_run", "--plan_launch", "zero9"], "--launch 'zero9' is neither a file nor one of"),
        (["--dry_run", "--plan_processes", "8"], "plan_processes needs plan_launch"),
        (["--dry_run", "--plan_launch", "ddp", "--plan_processes", "none"], "plan_processes='none' must be a whole"),
        (["--dry_run", "--plan_utilization", "2"], "plan_utilization=2.0 must lie in"),
        ([*PAPER, "--plan_launch", "zero3"], "expected_updates_per_generation=16, but"),
        ([*PAPER, "--plan_launch", "zero3", "--plan_processes", "32"], "model_name_or_path='./models"),
    ],
)
def test_mistakes(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        prepare_plan(words)


def test_options_of_a_plan_need_one() -> None:
    with pytest.raises(ValueError, match="give --dry_run, or leave it out"):
        parse_arguments(["--plan_gpu_gib", "40"])
