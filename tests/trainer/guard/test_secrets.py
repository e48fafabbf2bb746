"""Planted secrets, in the environment, arguments, a config and URLs: none is in what a training writes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.forked_recipes import served
from helpers.launched_recipes import ROOT
from helpers.tiny_training import SETTINGS, Build
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from tokenshift.analysis.secrets import HIDDEN
from tokenshift.trainer import DivergenceGRPOConfig
from tokenshift.trainer.guard import trackers

HF, PASSWORD, KEY, PRIVATE = "hf_" + "Zz9" * 11, "pa55word-of-a-url", "key-in-the-environment-7", "private-thing-17"
PLANTED = (HF, PASSWORD, KEY, PRIVATE)


def files_with_secrets(folder: Path) -> list[str]:
    """Each file with a planted secret, and which."""
    return [
        f"{path.relative_to(folder)}: {secret}"
        for path in folder.rglob("*")
        if path.is_file()
        for secret in PLANTED
        if secret.encode() in path.read_bytes()
    ]


def test_nothing_that_a_training_saves_or_tracks_holds_a_secret(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    class Tracker(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            given.extend((args, args.to_json_string(), str(args.to_dict()), str(args), sys.argv))

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "mlflow", Tracker)
    monkeypatch.setitem(trackers.PACKAGES, "mlflow", ("package", lambda: True))
    monkeypatch.setenv("SOME_API_KEY", KEY)
    monkeypatch.setattr(sys, "argv", ["train.py", "--hub_token", HF])
    trainer = build(
        hub_token=HF,
        hub_model_id=f"https://me:{PASSWORD}@host/model",
        run_name=f"run {KEY}",
        model_init_kwargs={"token": PRIVATE},
        report_to=["mlflow"],
        max_steps=1,
        save_strategy="steps",
        save_steps=1,
    )
    trainer.train()
    trainer.create_model_card(model_name=f"of {HF}")
    assert trainer.args.hub_token == HF, "the run itself keeps it"
    assert sys.argv[2] == HF
    assert files_with_secrets(tmp_path) == []
    assert not [secret for secret in PLANTED for text in map(str, given) if secret in text]
    (saved,) = tmp_path.rglob("training_args.bin")
    args = torch.load(saved, weights_only=False)
    assert isinstance(args, DivergenceGRPOConfig)
    assert (args.hub_token, args.run_name, args.max_steps) == (HIDDEN, f"run {HIDDEN}", 1)


def test_a_config_without_secrets_is_saved_as_it_is(tmp_path: Path) -> None:
    args = DivergenceGRPOConfig(**{**SETTINGS, "output_dir": str(tmp_path), "run_name": "tokens of eos_token"})
    torch.save(args, tmp_path / "args.bin")
    saved, given = vars(torch.load(tmp_path / "args.bin", weights_only=False)), dict(vars(args))
    # accelerate's state of the process, which is compared by identity
    assert (saved.pop("distributed_state") is None) == (given.pop("distributed_state") is None)
    assert saved == given


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The words before a recipe's path that launch it without its imports."""
    with served(tmp_path_factory.mktemp("socket"), "grpo_divweighted", "sft_control") as words:
        yield words


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["grpo_divweighted", "sft_control"])
def test_nothing_that_a_recipe_writes_or_says_holds_a_secret(recipe: str, forked: list[str], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f'model_init_kwargs: {{"token": "{PRIVATE}"}}\n')
    own = {
        "grpo_divweighted": ["--model_name_or_path", "pocket", "--dataset_name", "pocket", "--report_to", "wandb"],
        "sft_control": ["--target_accuracy", "0.99", "--check_steps", "2", "--report_to", "wandb"],
    }[recipe]
    shared = ["--max_steps", "2", "--eval_size", "8", "--save_steps", "1"]
    words = ["--output_dir", str(tmp_path / "out"), *own, *shared, "--config", str(tmp_path / "config.yaml")]
    words += ["--run_name", f"of {KEY} {HF} https://me:{PASSWORD}@host/model"]
    if recipe == "grpo_divweighted":
        words += ["--max_completion_length", "16", "--per_device_train_batch_size", "8", "--num_iterations", "2"]
    run = subprocess.run(
        [sys.executable, *forked, str(ROOT / "recipes" / f"{recipe}.py"), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SOME_API_KEY": KEY, "HF_TOKEN": HF, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"},
        cwd=tmp_path,
        timeout=300,
    )
    said = run.stdout + run.stderr
    assert run.returncode == 0, said
    assert not [secret for secret in PLANTED if secret in said]
    assert list((tmp_path / "out").glob("checkpoint-*/training_args.bin"))
    assert list(tmp_path.rglob("offline-run-*/*.wandb")), "W&B's files are looked at too"
    (tmp_path / "config.yaml").unlink()
    assert files_with_secrets(tmp_path) == []
