"""The shift analysis of several trainings: each as it is alone, then all together, and what cannot be pooled."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.pocket_models import BASE
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tokenshift.analysis.shift import report
from tokenshift.recipes import analyze_shift
from tokenshift.recipes.command_line.products import SETTINGS_FILE

QUICK = ["--size", "5", "--batch_size", "8", "--max_new_tokens", "30", "--report_responses", "0", "--resamples", "5"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Pocket's base, moved at random four times."""
    folder, names = tmp_path_factory.mktemp("trained"), []
    for seed in range(4):
        model = AutoModelForCausalLM.from_pretrained(BASE)
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * parameter.std() * torch.randn_like(parameter))
        model.save_pretrained(folder / f"seed{seed}")
        AutoTokenizer.from_pretrained(BASE).save_pretrained(folder / f"seed{seed}")
        names.append(str(folder / f"seed{seed}"))
    return names


def analyze(*words: str) -> None:
    job = analyze_shift.prepare([*words, *QUICK])
    analyze_shift.run(job)
    job.close()


def test_each_run_is_as_it_is_alone_and_runs_can_be_added(
    trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "summary_figures", lambda *given: {})  # drawing takes longer than all else
    analyze("--rl_model", trained[0], "--output_dir", str(tmp_path / "alone"))
    assert "What this run shows" in capsys.readouterr().out
    assert "in this run" in (tmp_path / "alone" / "report.html").read_text(encoding="utf-8")
    analyze("--rl_model", *trained[:2], "--output_dir", str(tmp_path / "runs"))
    (first,) = (tmp_path / "runs" / "runs").glob("*seed0*")
    alone = {path.relative_to(tmp_path / "alone") for path in (tmp_path / "alone").rglob("*")}
    assert {path.relative_to(first) for path in first.rglob("*")} == alone
    for name in ("summary.json", SETTINGS_FILE):
        assert (first / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    summary = json.loads((tmp_path / "runs" / "runs.json").read_text())
    statements = summary["kinds"]["rl"]["groups"]["RL"]["statements"]
    assert {judged["verdict"] for judged in statements} == {"open: 2 runs are too few"}
    assert [run["run"] for run in statements[0]["runs"]] == trained[:2]
    assert summary["metadata"]["base_model"] == "pocket"
    assert "rl_model" not in summary["metadata"]

    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "runs").glob("*/t*/*.parquet")}
    assert len(kept) == 4
    named = [f"mine={name}" for name in trained[:3]]
    analyze("--rl_model", *named, "--output_dir", str(tmp_path / "runs"))
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    summary = json.loads((tmp_path / "runs" / "runs.json").read_text())
    assert summary["groups"] == {"mine": trained[:3]}
    near_zero = summary["kinds"]["rl"]["groups"]["mine"]["statements"][0]
    assert near_zero["verdict"] in ("seen", "not seen", "open")
    assert near_zero["estimate"]["low"] < near_zero["estimate"]["value"] < near_zero["estimate"]["high"]
    assert "over runs" in (tmp_path / "runs" / "report.html").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="holds an analysis with max_new_tokens=30, not 20"):
        analyze_shift.prepare(
            ["--rl_model", *trained[:2], *QUICK, "--max_new_tokens", "20", "--output_dir", str(tmp_path / "runs")]
        )


def test_runs_that_cannot_be_pooled_are_refused_in_a_line(trained: list[str], tmp_path: Path) -> None:
    copy = str(shutil.copytree(trained[0], tmp_path / "copy"))
    config = AutoConfig.from_pretrained(BASE, num_hidden_layers=1)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "shallow")
    AutoTokenizer.from_pretrained(BASE).save_pretrained(tmp_path / "shallow")
    longer = str(shutil.copytree(trained[1], tmp_path / "longer"))
    tokenizer = AutoTokenizer.from_pretrained(longer)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(longer)
    cases = {
        "and rl_model='.*longer': ": ["--rl_model", trained[0], longer],
        "is given twice": ["--rl_model", trained[0], trained[1], trained[0] + "/"],
        "is the same model as": ["--rl_model", trained[0], copy],
        "num_hidden_layers 1, and": ["--rl_model", trained[0], str(tmp_path / "shallow")],
        "sft_models has one": ["--rl_model", *trained[:2], "--sft_models", trained[3]],
        "the recipe 'RL' has one": ["--rl_model", trained[0], "--sft_models", *trained[1:3]],
        "the recipe 'b' has one": ["--rl_model", *(f"a={name}" for name in trained[:2]), f"b={trained[2]}"],
        "none for": ["--rl_model", f"a={trained[0]}", trained[1]],
        "give SFT models by --sft_models": ["--rl_model", f"SFT={trained[0]}", f"SFT={trained[1]}"],
        "is of a single run": ["--rl_model", *trained[:2], "--control", str(tmp_path)],
        "sft_models='.*/nowhere' is not a folder": ["--rl_model", *trained[:2], "--sft_models", "./nowhere", "./b"],
    }
    for words, given in cases.items():
        with pytest.raises(ValueError, match=words) as raised:
            analyze_shift.prepare([*given, *QUICK, "--output_dir", str(tmp_path / "out")])
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()
