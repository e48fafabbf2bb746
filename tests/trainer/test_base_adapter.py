"""The base of a PEFT policy is the policy as training began, for every kind of adapter, every beta and on a resume."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from helpers.recorded_updates import Recorder, logits
from helpers.tiny_sizes import SIZES
from helpers.tiny_training import SETTINGS, digit_reward, parameters, same
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

from tokenshift.analysis.divergence.from_logits import js_divergence
from tokenshift.trainer import DivergenceGRPOConfig
from tokenshift.trainer.base_adapter import FILE, BaseAdapter, adds_nothing

JS_BASE = {"divergence": "js", "divergence_reference": "base", "steps_per_generation": 1}
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


def scatter(model: torch.nn.Module, size: float = 0.2) -> torch.nn.Module:
    """The model with random numbers added to its trainable weights, as if it had been trained."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model


def trainer_of(
    policy: Any, problems: Dataset, folder: Path, *, processing_class: Any = None, **settings: Any
) -> Recorder:
    args = DivergenceGRPOConfig(**{"output_dir": str(folder), **SETTINGS, **JS_BASE, **settings})
    return Recorder(
        model=policy,
        reward_funcs=digit_reward,
        args=args,
        train_dataset=problems,
        processing_class=processing_class,
    )


def check(trainer: Recorder, base: torch.nn.Module) -> None:
    """Compare the recorded divergences with those from full logits of the policy and of `base`."""
    for update in trainer.seen:
        with torch.no_grad():
            expected = js_divergence(logits(base.eval(), update["inputs"]), update["policy"])
        torch.testing.assert_close(update["divergence"].double(), expected, atol=1e-5, rtol=1e-3)
    assert float(trainer.seen[-1]["divergence"].max()) > 3e-5


def trained_lora(folder: str) -> Any:
    torch.manual_seed(0)
    return scatter(get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(**LORA)))


def _two_adapters(model: torch.nn.Module) -> Any:
    """A frozen adapter that stays active under a new one, which is trained."""
    policy = scatter(get_peft_model(model, LoraConfig(**LORA), adapter_name="first"))
    policy.add_adapter("default", LoraConfig(**LORA))
    policy.base_model.set_adapter(["first", "default"])
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_("lora_" in name and ".default." in name)
    return policy


def _lora(**settings: Any) -> Callable[[torch.nn.Module], Any]:
    return lambda model: get_peft_model(model, LoraConfig(**{**LORA, **settings}))


def _trained(make: Callable[[torch.nn.Module], Any], size: float = 0.2) -> Callable[[torch.nn.Module], Any]:
    return lambda model: scatter(make(model), size)


PROMPT = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
KINDS: dict[str, tuple[Callable[[torch.nn.Module], Any], bool]] = {
    "new": (_lora(), True),
    "new DoRA": (_lora(use_dora=True), True),
    "trained": (_trained(_lora()), False),
    "trained rsLoRA": (_trained(_lora(use_rslora=True), 0.1), False),
    "trained DoRA": (_trained(_lora(use_dora=True), 0.1), False),
    "PiSSA": (_lora(init_lora_weights="pissa"), False),
    "head": (_lora(modules_to_save=["lm_head"]), False),
    "two adapters": (_two_adapters, False),
    "prompt tuning": (lambda model: get_peft_model(model, PROMPT), False),
}
"""Name -> function from a model to a policy, and whether its adapter adds nothing yet."""


@pytest.mark.parametrize("kind", KINDS)
def test_base_is_the_policy_as_it_began(tiny_model: str, problems: Dataset, tmp_path: Path, kind: str) -> None:
    make, nothing = KINDS[kind]
    policy = make(AutoModelForCausalLM.from_pretrained(tiny_model))
    assert adds_nothing(policy) == nothing
    base = copy.deepcopy(policy)
    trainer = trainer_of(policy, problems, tmp_path, max_steps=3, learning_rate=0.1)
    trainer.train()
    assert (trainer._reference.adapter.weights is None) == nothing
    assert float(trainer.seen[0]["divergence"].max()) < 1e-5
    check(trainer, base)


def test_trained_biases_are_part_of_the_base(problems: Dataset, tiny_model: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        **SIZES,
    )
    policy = _lora(bias="lora_only")(AutoModelForCausalLM.from_config(config))
    assert not adds_nothing(policy), "disabling the adapter leaves the biases trained"
    base = copy.deepcopy(policy)
    trainer = trainer_of(policy, problems, tmp_path, max_steps=3, learning_rate=0.1, processing_class=tokenizer)
    trainer.train()
    check(trainer, base)


def test_beta_does_not_choose_the_base(tiny_model: str, problems: Dataset, tmp_path: Path) -> None:
    base = copy.deepcopy(trained_lora(tiny_model))
    for beta in (0.0, 0.1):
        trainer = trainer_of(trained_lora(tiny_model), problems, tmp_path / f"{beta}", beta=beta, max_steps=3)
        trainer.train()
        check(trainer, base)


def test_looking_at_the_base_changes_no_training(tiny_model: str, problems: Dataset, tmp_path: Path) -> None:
    ends = []
    for settings in ({"log_divergence": False}, {"log_divergence": True}):
        trainer = trainer_of(trained_lora(tiny_model), problems, tmp_path, advantage_weighting="none", **settings)
        trainer.train()
        ends.append(parameters(trainer))
    assert same(*ends)


def test_base_outlives_a_resume(
    tiny_model: str, problems: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"save_strategy": "steps", "save_steps": 2}
    whole = trainer_of(trained_lora(tiny_model), problems, tmp_path, **settings)
    whole.train()
    checkpoint = tmp_path / "checkpoint-2"
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    resumed = PeftModel.from_pretrained(model, checkpoint, is_trainable=True)
    for policy in (trained_lora(tiny_model), resumed):
        trainer = trainer_of(policy, problems, tmp_path, **settings)
        trainer.train(resume_from_checkpoint=str(checkpoint))
        assert [update["divergence"].tolist() for update in trainer.seen] == [
            update["divergence"].tolist() for update in whole.seen[2:]
        ]
    assert FILE not in caplog.text
    (tmp_path / FILE).unlink()
    trainer_of(trained_lora(tiny_model), problems, tmp_path, **settings).train(resume_from_checkpoint=str(checkpoint))
    assert f"{FILE} is missing, so the base is the adapter as the resumed trainer was given it" in caplog.text


def test_file_of_another_adapter_is_refused(tiny_model: str, problems: Dataset, tmp_path: Path) -> None:
    trainer_of(trained_lora(tiny_model), problems, tmp_path)._reference.adapter.save(tmp_path / FILE)
    other = scatter(_lora(r=2)(AutoModelForCausalLM.from_pretrained(tiny_model)))
    adapter = trainer_of(other, problems, tmp_path)._reference.adapter
    with pytest.raises(ValueError, match="is of another adapter than the policy's"):
        adapter.load(tmp_path / FILE)


def test_trained_adapter_that_is_sharded_is_refused(tiny_model: str, problems: Dataset, tmp_path: Path) -> None:
    trainer = trainer_of(trained_lora(tiny_model), problems, tmp_path)
    trainer.is_fsdp_enabled = True
    with pytest.raises(ValueError, match=r"FSDP shards it: merge it into the model \(merge_and_unload\)"):
        BaseAdapter(trainer)
