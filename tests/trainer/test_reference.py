"""Whole-distribution divergences in training, against full logits of both models in float64."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from helpers import architectures
from helpers.recorded_updates import Recorder, logits
from helpers.tiny_training import SETTINGS, Build, digit_reward, parameters, same
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from tokenshift.analysis.divergence.from_logits import entropy, js_divergence, kl_divergence
from tokenshift.trainer import DivergenceGRPOConfig, base_model, reference

BASE = {"divergence": "js", "divergence_reference": "base"}


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step >= self.step


def reference_divergence(name: str, base: torch.Tensor, policy: torch.Tensor, top_p: float) -> torch.Tensor:
    if name == "js":
        return js_divergence(base, policy, top_p=top_p)
    return kl_divergence(base, policy) if name == "forward_kl" else kl_divergence(policy, base)


@pytest.mark.parametrize(
    ("settings", "peft"),
    [
        ({"divergence": "js"}, False),
        ({"divergence": "js", "divergence_top_p": 0.7}, False),
        ({"divergence": "forward_kl"}, False),
        ({"divergence": "reverse_kl", "beta": 0.1}, False),
        ({"divergence": "js", "temperature": 0.7, "gradient_checkpointing": True}, False),
        ({"divergence": "js"}, True),
        ({"divergence": "js", "beta": 0.1}, True),
        ({"divergence": "js"}, "a head of its own"),
    ],
)
def test_divergence_from_the_base_against_full_logits(
    build: Build, tiny_model: str, settings: dict[str, Any], peft: bool | str
) -> None:
    trained_head = ["lm_head"] if peft == "a head of its own" else None
    lora = LoraConfig(r=4, target_modules="all-linear", modules_to_save=trained_head)
    kwargs = {"peft_config": lora} if peft else {}
    trainer = build(
        trainer_class=Recorder, divergence_reference="base", trainer_kwargs=kwargs, steps_per_generation=1, **settings
    )
    trainer.train()
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    temperature = settings.get("temperature", 1.0)
    for update in trainer.seen:
        with torch.no_grad():
            expected = reference_divergence(
                settings["divergence"],
                logits(base, update["inputs"]) / temperature,
                update["policy"] / temperature,
                settings.get("divergence_top_p", 1.0),
            )
        torch.testing.assert_close(update["divergence"].double(), expected, atol=1e-5, rtol=1e-3)
    assert float(trainer.seen[0]["divergence"].max()) < 1e-5, "the untrained policy is the base"
    assert float(trainer.seen[-1]["divergence"].max()) > 1e-4


@pytest.mark.parametrize("divergence_reference", ["base", "old"])
def test_autocast_compares_what_it_multiplies(
    build: Build, monkeypatch: pytest.MonkeyPatch, divergence_reference: str
) -> None:
    seen: list[set[torch.dtype]] = []
    statistics = reference.token_statistics

    def recorded(*args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        seen.append({value.dtype if isinstance(value, torch.Tensor) else value.weight.dtype for value in args[:4]})
        return statistics(*args, **kwargs)

    monkeypatch.setattr(reference, "token_statistics", recorded)
    for half in (False, True):
        build(divergence="js", divergence_reference=divergence_reference, bf16=half, max_steps=2).train()
        assert seen.pop() == {torch.bfloat16 if half else torch.float32}
        assert set().union(*seen) == {torch.bfloat16 if half else torch.float32}
        seen.clear()


def test_divergence_from_the_rollout_policy(build: Build) -> None:
    trainer = build(trainer_class=Recorder, divergence="js", steps_per_generation=2)
    trainer.train()
    first, second = trainer.seen[2], trainer.seen[3]  # of the second generation
    assert float(first["divergence"].max()) < 1e-5
    assert float(second["divergence"].max()) > 1e-4
    # the second update's completions under the policy as it was at the first, whose step it has since made
    rebuilt = build(divergence="js", steps_per_generation=2, trainer_kwargs={"callbacks": [StopAt(2)]})
    rebuilt.train()
    with torch.no_grad():
        expected = js_divergence(logits(rebuilt.model, second["inputs"]), second["policy"])
    torch.testing.assert_close(second["divergence"].double(), expected, atol=1e-5, rtol=1e-3)


def test_metrics_by_entropy_and_position(build: Build, tiny_model: str) -> None:
    trainer = build(trainer_class=Recorder, steps_per_generation=1, **BASE)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "divergence/mean" in log]
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        reference = logits(base, trainer.seen[-1]["inputs"])
    policy = trainer.seen[-1]["policy"]
    js = js_divergence(reference, policy)
    bins = {"near_zero": (0, 1e-3), "low": (1e-3, 0.01), "middle": (0.01, 0.1), "high": (0.1, 1)}
    for name, (low, high) in bins.items():
        inside = (js >= low) & (js < high)
        if inside.any():
            assert logs[-1][f"divergence_entropy/policy_{name}"] == pytest.approx(
                float(entropy(policy)[inside].mean()), rel=1e-4
            )
            assert logs[-1][f"divergence_entropy/reference_{name}"] == pytest.approx(
                float(entropy(reference)[inside].mean()), rel=1e-4
            )
        else:
            assert f"divergence_entropy/policy_{name}" not in logs[-1]
    mask = trainer.seen[-1]["inputs"]["completion_mask"]
    place = ((mask.cumsum(1) - 1) / mask.sum(1, keepdim=True) * 20).long()[mask.bool()]
    for bin_ in range(20):
        key = f"divergence_position/{bin_:02d}"
        if (place == bin_).any():
            assert logs[-1][key] == pytest.approx(float(js[place == bin_].mean()), rel=1e-3, abs=1e-6)
        else:
            assert key not in logs[-1]


@pytest.mark.parametrize("peft", [False, True])
def test_logging_distributions_changes_nothing(build: Build, peft: bool) -> None:
    ends = []
    for settings in ({"stock": True}, {"advantage_weighting": "none", "log_divergence": True, **BASE}):
        kwargs = {"peft_config": LoraConfig(r=4, target_modules="all-linear")} if peft else {}
        trainer = build(trainer_kwargs=kwargs, **settings)
        trainer.train()
        ends.append(parameters(trainer))
    assert any("divergence_position/00" in log for log in trainer.state.log_history)
    assert same(*ends)


def test_beta_uses_trls_reference_model(build: Build) -> None:
    trainer = build(beta=0.1, **BASE)
    assert trainer._reference.base is trainer.ref_model
    assert build(**BASE)._reference.base is not None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"divergence_reference": "base"}, "divergence_reference='base' needs divergence js"),
        ({"divergence_top_p": 0.7}, "divergence_top_p=0.7 needs divergence='js'"),
        ({"divergence": "forward_kl", "divergence_top_p": 0.7}, "forward_kl has no meaning"),
        ({"divergence": "js", "divergence_top_p": 0.0}, "divergence_top_p=0.0 must lie in"),
        ({"divergence": "js", "steps_per_generation": 1}, "compares the policy with itself"),
        ({"divergence": "js", "torch_compile": True}, "set torch_compile=False, or use divergence k1, k2 or k3"),
    ],
)
def test_refused(build: Build, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(**settings)


def test_tokens_added_to_a_loaded_policy_are_refused(tiny_model: str, problems: Dataset, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    policy = AutoModelForCausalLM.from_pretrained(tiny_model)
    policy.resize_token_embeddings(len(tokenizer))
    args = DivergenceGRPOConfig(output_dir=str(tmp_path / "out"), **SETTINGS, **BASE)

    def trainer_of(model: Any) -> Recorder:
        return Recorder(model, digit_reward, args, problems, processing_class=tokenizer)

    words = r"The base, .* the added tokens '<think>', '</think>' are unknown to the base. Save the resized model"
    with pytest.raises(ValueError, match=words):
        trainer_of(policy)
    policy.save_pretrained(tmp_path / "resized")
    tokenizer.save_pretrained(tmp_path / "resized")
    trainer = trainer_of(AutoModelForCausalLM.from_pretrained(tmp_path / "resized"))
    trainer.train()
    assert float(trainer.seen[0]["divergence"].max()) < 1e-5


def test_each_part_of_a_base_keeps_the_attention_that_it_knows(build: Build, tmp_path: Path) -> None:
    architectures.tiny_model("gemma4").save_pretrained(tmp_path)  # its audio part knows no sdpa
    trainer = build()
    trainer.model = AutoModelForCausalLM.from_pretrained(tmp_path)
    config = trainer.model.config
    assert [part._attn_implementation for part in (config.text_config, config.audio_config)] == ["sdpa", "eager"]
    base = base_model.load_base(trainer, str(tmp_path)).config
    assert [part._attn_implementation for part in (base.text_config, base.audio_config)] == ["sdpa", "eager"]
    trainer.model = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    base = base_model.load_base(trainer, str(tmp_path)).config
    assert [part._attn_implementation for part in (base, base.text_config, base.audio_config)] == ["eager"] * 3


def test_base_of_a_quantized_policy_is_quantized_alike(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build()
    trainer.model.is_quantized = True
    trainer.model.config.quantization_config = {"load_in_4bit": True}
    asked: dict[str, Any] = {}
    monkeypatch.setattr(
        base_model, "create_model_from_path", lambda path, **kwargs: asked.update(kwargs) or trainer.model
    )
    base_model.load_base(trainer, "elsewhere")
    assert asked["quantization_config"] == {"load_in_4bit": True}
