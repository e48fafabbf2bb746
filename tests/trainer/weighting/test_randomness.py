"""Divergences without dropout, whatever an architecture calls it; training keeps it."""

import logging
from typing import Any

import pytest
import torch
from datasets import Dataset
from helpers.recorded_updates import Recorder, logits
from helpers.tiny_training import SETTINGS, Build, digit_reward, parameters, same
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from tokenshift.analysis.divergence.from_logits import js_divergence
from tokenshift.trainer import DivergenceGRPOConfig
from tokenshift.trainer.policy.padded_positions import give_positions
from tokenshift.trainer.weighting.randomness import Randomness

DROPPED_LORA = LoraConfig(r=4, lora_dropout=0.5, target_modules="all-linear")
JS_BASE = {"divergence": "js", "divergence_reference": "base"}


@pytest.fixture(scope="module")
def gpt2(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random GPT-2, whose dropout is 0.1."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=128)
    path = tmp_path_factory.mktemp("gpt2")
    GPT2LMHeadModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def trainer_of(model: Any, problems: Dataset, folder: Any, **settings: Any) -> Recorder:
    args = DivergenceGRPOConfig(**{"output_dir": str(folder), **SETTINGS, **settings})
    return Recorder(model=model, reward_funcs=digit_reward, args=args, train_dataset=problems)


@pytest.mark.parametrize("settings", [{"divergence": "k3"}, {"divergence": "js"}, JS_BASE], ids=["k3", "js", "base"])
def test_policy_that_never_moves_has_no_divergence(
    gpt2: str, problems: Dataset, tmp_path: Any, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        trainer = trainer_of(gpt2, problems, tmp_path, learning_rate=0.0, **settings)
        trainer.train()
    assert max(float(update["divergence"].max()) for update in trainer.seen) < 1e-5
    lines = [record.getMessage() for record in caplog.records if "dropout" in record.getMessage()]
    assert len(lines) == 1
    assert "nn.Dropout 0.1" in lines[0]
    assert "disable_dropout=True would save that pass" in lines[0]


def test_policy_that_moves_against_full_logits_without_dropout(gpt2: str, problems: Dataset, tmp_path: Any) -> None:
    trainer = trainer_of(gpt2, problems, tmp_path, **JS_BASE)
    trainer.train()
    base = AutoModelForCausalLM.from_pretrained(gpt2)
    give_positions(base)  # as the trainer does
    for update in trainer.seen:
        with torch.no_grad():
            expected = js_divergence(logits(base, update["inputs"]), update["policy"])
        torch.testing.assert_close(update["divergence"].double(), expected, atol=1e-5, rtol=1e-3)
    assert float(trainer.seen[-1]["divergence"].max()) > 1e-4


def test_dropout_in_attention_and_adapters_is_named(
    build: Build, tiny_model: str, problems: Dataset, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        build(trainer_kwargs={"peft_config": DROPPED_LORA}, max_steps=1).train()
        policy = AutoModelForCausalLM.from_pretrained(tiny_model, attention_dropout=0.2)
        trainer = trainer_of(policy, problems, tmp_path, learning_rate=0.0, disable_dropout=True)
        trainer.train()
    assert max(float(update["divergence"].max()) for update in trainer.seen) < 1e-5
    lines = [record.getMessage() for record in caplog.records if "trains with dropout" in record.getMessage()]
    assert len(lines) == 2
    assert "lora_dropout 0.5" in lines[0]
    assert "lora_dropout=0" in lines[0]
    assert "model_init_kwargs={'attention_dropout': 0.0}" in lines[1]


def test_looking_without_dropout_changes_no_training(build: Build) -> None:
    ends = []
    for settings in ({"stock": True}, {"advantage_weighting": "none", "log_divergence": True, **JS_BASE}):
        trainer = build(trainer_kwargs={"peft_config": DROPPED_LORA}, **settings)
        trainer.train()
        ends.append(parameters(trainer))
    assert same(*ends)


def test_random_numbers_are_noticed() -> None:
    randomness = Randomness(torch.device("cpu"))
    with randomness.watched():
        torch.nn.functional.dropout(torch.ones(3), 0.0)
    assert not randomness.present
    with randomness.watched():
        torch.nn.functional.dropout(torch.ones(3), 0.5)
    assert randomness.present
