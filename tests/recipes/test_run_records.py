"""`config.yaml` of every recipe's output folder: what it has, and that it is read as the run that it is of."""

import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.pocket_models import save_moved

from tokenshift.recipes import analyze_shift
from tokenshift.recipes.command_line import run_record
from tokenshift.recipes.command_line.commands import COMMANDS
from tokenshift.recipes.command_line.config_files import read_config
from tokenshift.recipes.command_line.early_check import check_words
from tokenshift.recipes.command_line.git_state import git_state
from tokenshift.recipes.command_line.run_record import record_launch, settings_to_record, write_record
from tokenshift.recipes.jobs.analysis import cross_sampling, evaluation, evolution, robustness
from tokenshift.recipes.jobs.comparison.arguments import prepare as prepare_comparison
from tokenshift.recipes.jobs.sft.preparation import parse_sft_arguments
from tokenshift.recipes.jobs.training.arguments import parse_arguments

PREPARED: dict[str, Callable[[list[str]], Any]] = {
    "shift": analyze_shift.prepare,
    "evolution": evolution.prepare,
    "robustness": robustness.prepare,
    "cross": cross_sampling.prepare,
    "evaluate": evaluation.prepare,
}
"""Analyses, which write their record when they take their folder."""

CHOSEN: dict[str, list[str]] = {
    "shift": ["--trajectories", "both", "--measure", "js"],
    "evolution": [],
    "robustness": ["--temperatures", "0.5", "1", "--kinds", "rl", "mixed", "--mixed_criterion", "js"],
    "cross": ["--criteria", "js_top_p(top_p=0.9)", "random", "--budgets", "0.05", "--draws", "independent"],
    "evaluate": ["--against", "pocket", "--ks", "1", "2", "--datasets", "pocket", "sums"],
}


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_moved(tmp_path_factory.mktemp("moved"), 0.03)


@pytest.mark.parametrize("command", PREPARED)
def test_an_analysis_is_read_from_its_record(command: str, moved: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    model = {"evaluate": "--model", "evolution": "--checkpoints"}.get(command, "--rl_model")
    words = [model, str(moved), "--size", "3", "--samples", "2", "--max_new_tokens", "20", "--seed", "5"]
    if command == "cross":
        words[words.index("--seed") : words.index("--seed") + 2] = ["--seeds", "5", "7"]
    PREPARED[command]([*words, *CHOSEN[command], "--output_dir", str(first)]).close()
    record = yaml.safe_load((first / "config.yaml").read_text())
    dataclass_fields = {f.name for f in fields(_arguments(command)) if f.name not in run_record.LEFT_OUT}
    assert set(record) == dataclass_fields | {"record"}
    (launch,) = record["record"]["launches"]
    assert record["record"]["command"] == command
    assert launch["command_line"].startswith(f"tokenshift {command} {model} {moved}")
    assert any(name.startswith(("rl_model", "model")) for name in launch["contents"])

    words = ["--config", str(first / "config.yaml"), "--output_dir", str(again)]
    check_words(COMMANDS[command], list(words))
    PREPARED[command](words).close()
    settings = [json.loads((folder / "settings.json").read_text()) for folder in (first, again)]
    assert settings[0] == settings[1], "on which all rows depend"
    second = yaml.safe_load((again / "config.yaml").read_text())
    assert {**second, "output_dir": None, "record": None} == {**record, "output_dir": None, "record": None}


def _arguments(command: str) -> Any:
    module, _, name = COMMANDS[command].arguments[0].rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)


def test_an_analysis_that_goes_on_keeps_the_first_launch(moved: Path, tmp_path: Path) -> None:
    words = ["--model", str(moved), "--size", "3", "--max_new_tokens", "20", "--output_dir", str(tmp_path)]
    evaluation.prepare([*words, "--resamples", "50"]).close()
    first = yaml.safe_load((tmp_path / "config.yaml").read_text())
    evaluation.prepare([*words, "--resamples", "60"]).close()
    second = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert second["resamples"] == 60
    assert second["record"]["launches"][:1] == first["record"]["launches"]
    assert second["record"]["launches"][1]["goes_on"] is True
    assert second["record"]["launches"][1]["changed"] == {"resamples": {"before": 50, "now": 60}}
    evaluation.prepare([*words, "--overwrite", "true"]).close()
    assert len(yaml.safe_load((tmp_path / "config.yaml").read_text())["record"]["launches"]) == 1


def test_each_run_of_several_has_its_own(moved: Path, tmp_path: Path) -> None:
    other = save_moved(tmp_path / "other", 0.05)
    words = ["--rl_model", str(moved), str(other), "--size", "3", "--samples", "1", "--max_new_tokens", "20"]
    analyze_shift.prepare([*words, "--output_dir", str(tmp_path / "out")]).close()
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["rl_model"] == [str(moved), str(other)]
    folders = sorted((tmp_path / "out" / "runs").iterdir())
    assert len(folders) == 2
    for folder in folders:
        record = folder / "config.yaml"
        analyze_shift.prepare(["--config", str(record), "--output_dir", str(tmp_path / folder.name)]).close()
        settings = [json.loads((path / "settings.json").read_text()) for path in (folder, tmp_path / folder.name)]
        assert settings[0] == settings[1]


def trained(folder: Path, *words: str, goes_on: bool = False) -> dict[str, Any]:
    """The record of a training whose command line has these words."""
    parsed = parse_arguments([*words, "--output_dir", str(folder), "--report_to", "none"])
    file = record_launch(folder, parsed, goes_on=goes_on)
    record: dict[str, Any] = yaml.safe_load(file.read_text())
    return record


def test_a_training_is_read_from_its_record(tmp_path: Path) -> None:
    words = ["--divergence_alpha", "-30", "--weighting_options", "{}", "--per_device_train_batch_size", "16"]
    words += ["--model_init_kwargs", '{"attn_implementation": "eager"}', "--lr_scheduler_kwargs", '{"a": 1.5}']
    record = trained(tmp_path, *words)
    derived = record["record"]["launches"][0]["derived"]
    assert record["generation_batch_size"] is None
    assert derived["generation_batch_size"] == 64
    assert not {"local_rank", "use_cpu", "overwrite", "resume_from_checkpoint", "plan_tflops"} & set(record)
    file = str(tmp_path / "config.yaml")
    check_words(COMMANDS["train"], ["--config", file])
    again = parse_arguments(["--config", file])
    first = parse_arguments([*words, "--output_dir", str(tmp_path), "--report_to", "none"])
    for mine, theirs in zip(again, first, strict=True):
        for field in fields(mine):
            assert getattr(mine, field.name) == getattr(theirs, field.name), field.name


def test_a_device_that_was_given_is_recorded(tmp_path: Path) -> None:
    assert trained(tmp_path, "--use_cpu", "true")["use_cpu"] is True


def test_a_control_is_read_from_its_record(tmp_path: Path) -> None:
    words = ["--output_dir", str(tmp_path), "--target_accuracy", "0.8", "--report_to", "none"]
    first = parse_sft_arguments(words)
    file = record_launch(tmp_path, first, goes_on=False)
    for mine, theirs in zip(parse_sft_arguments(["--config", str(file)]), first, strict=True):
        for field in fields(mine):
            assert getattr(mine, field.name) == getattr(theirs, field.name), field.name


def test_a_comparison_is_read_from_its_record(write_comparison: Callable[..., Path], tmp_path: Path) -> None:
    file, out = write_comparison(), tmp_path / "out"
    first = prepare_comparison(["--config", str(file), "--output_dir", str(out), "--outcome", "final_accuracy"])
    first.close()
    moved_away = shutil.move(out / "config.yaml", tmp_path / "record.yaml")
    file.unlink()
    again = prepare_comparison(["--config", str(moved_away), "--output_dir", str(tmp_path / "again")])
    again.close()
    for name in ("name", "seeds", "baseline", "evaluation", "contents", "recovery", "launch", "outcome", "measure"):
        assert getattr(again.comparison, name) == getattr(first.comparison, name), name
    assert list(again.comparison.variants) == list(first.comparison.variants)
    for name, variant in again.comparison.variants.items():
        assert variant.trains_as(first.comparison.variants[name])
        assert variant.resolved.items() >= first.comparison.variants[name].resolved.items()


def test_a_training_takes_the_record_of_another_as_its_config(tmp_path: Path) -> None:
    trained(tmp_path, "--beta", "0.04")
    (script_args, args, _) = parse_arguments(["--config", str(tmp_path / "config.yaml"), "--seed", "9"])
    assert (args.beta, args.seed, script_args.dataset_name) == (0.04, 9, "pocket")


def test_a_record_of_another_command_is_refused(tmp_path: Path) -> None:
    trained(tmp_path)
    words = ["--config", str(tmp_path / "config.yaml")]
    with pytest.raises(ValueError, match="is the record of a run of `tokenshift train`, not of shift"):
        check_words(COMMANDS["shift"], words)


def test_secrets_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "environment" * 3)
    private = "private-thing-17"
    words = ["--push_to_hub", "true", "--hub_token", private, "--wandb_group", "hf_" + "environment" * 3]
    words += ["--model_init_kwargs", f'{{"token": "{private}", "use_cache": true}}']
    parsed = parse_arguments(words)
    text = record_launch(tmp_path, parsed, goes_on=False).read_text()
    assert private not in text
    assert "environment" not in text
    record = yaml.safe_load(text)
    assert "hub_token" not in record
    assert record["model_init_kwargs"] == {"use_cache": True}
    again = parse_arguments(["--config", str(tmp_path / "config.yaml"), "--wandb_group", "mine"])
    assert again[1].hub_token is None


def test_a_masked_text_is_asked_for(tmp_path: Path) -> None:
    record = trained(tmp_path, "--run_name", "https://user:word@host/x")
    assert record["run_name"] == "https://<SECRET>@host/x"
    words = ["--config", str(tmp_path / "config.yaml")]
    with pytest.raises(ValueError, match="the config's run_name has <SECRET> in place of a secret; set it by --run"):
        parse_arguments(words)
    assert parse_arguments([*words, "--run_name", "mine"])[1].run_name == "mine"


def test_a_config_of_the_users_own_is_kept(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("max_steps: 4\n")
    file = write_record(tmp_path, "train", {"max_steps": 5})
    assert file.name == "run_config.yaml"
    assert (tmp_path / "config.yaml").read_text() == "max_steps: 4\n"
    assert read_config(file) == {"max_steps": 5}
    assert write_record(tmp_path, "train", {"max_steps": 6}) == file


def test_a_write_that_fails_leaves_the_earlier_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write_record(tmp_path, "train", {"max_steps": 5}).read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_record(tmp_path, "train", {"max_steps": 6})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"config.yaml": before}


def test_a_damaged_record_does_not_stop_a_run_that_goes_on(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{")
    file = write_record(tmp_path, "train", {}, goes_on=True)
    assert len(yaml.safe_load(file.read_text())["record"]["launches"]) == 1


def test_the_git_state_is_that_of_the_checkout(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")

    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        done = subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)
        return done.stdout.decode().strip()

    assert git_state(tmp_path / "nowhere") is None
    git("init", "-q")
    assert git_state(tmp_path) is None, "there is no commit yet"
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-q", "-m", "a")
    commit = git("rev-parse", "HEAD")
    assert git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "untracked").write_text("b")
    assert git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "file").write_text("b")
    assert git_state(tmp_path) == {"commit": commit, "dirty": True}


def test_every_option_is_recorded_or_left_out_on_purpose(tmp_path: Path) -> None:
    parsed = parse_arguments(["--output_dir", str(tmp_path)])
    named = {field.name for arguments in parsed for field in fields(arguments) if field.init}
    assert named - set(settings_to_record(parsed)) == {*run_record.LEFT_OUT, *run_record.IF_GIVEN} & named


def test_training_args_hold_nothing_of_the_command_line() -> None:
    parsed = parse_arguments(["--push_to_hub", "true", "--hub_token", "private-thing-17", "--run_name", "a-name"])
    pickled = pickle.dumps(parsed[1])
    assert b"private-thing-17" not in pickled
    assert b"WrittenOptions" not in pickled
    assert pickle.loads(pickled).run_name == "a-name"


def test_a_run_of_many_launches_keeps_the_first_and_the_newest(tmp_path: Path) -> None:
    for number in range(23):
        settings = {f"setting_{index}": index for index in range(250)} | {"max_steps": number}
        file = write_record(tmp_path, "train", settings, goes_on=True, words=[str(number)])
    assert read_config(file, "train")["max_steps"] == 22
    record = yaml.safe_load(file.read_text())["record"]
    assert record["launches_left_out"] == 3
    assert [int(launch["command_line"].split()[-1]) for launch in record["launches"]] == [0, *range(4, 23)]
