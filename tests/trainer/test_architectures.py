"""Training with whole-distribution divergences, on one model of each kind of head: right, or refused in words."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from helpers.architectures import perturbed, tiny_model
from helpers.quantized_heads import Linear4bit
from helpers.tiny_training import SETTINGS, digit_reward
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from tokenshift.analysis.divergence.from_logits import js_divergence
from tokenshift.analysis.divergence.lm_head import head_of
from tokenshift.analysis.sampling.token_ids import positions_of
from tokenshift.analysis.sampling.trajectories import Trajectory, batch_of
from tokenshift.recipes.pocket.make_base import make_tokenizer
from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer

NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
PROMPTS = ["1+2=", "13+2=", "4+5=", "7+1="]


def logits(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The model's own logits `(N, V)` of the valid completion tokens, float64."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    length = inputs["completion_ids"].shape[1]
    with torch.no_grad():
        given = {"position_ids": positions_of(mask)} if model.config.model_type == "gpt2" else {}
        whole = model(input_ids=ids, attention_mask=mask, use_cache=False, **given).logits[:, -length - 1 : -1]
    return whole[inputs["completion_mask"].bool()].double()


class Recorder(DivergenceGRPOTrainer):
    """Keeps of every update its inputs, its divergences, TRL's log-probabilities and the policy's own logits."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.updates: list[tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]] = []
        super().__init__(*args, **kwargs)

    def _weight_advantages(self, inputs: dict[str, Any], logps: torch.Tensor, states: list[torch.Tensor]) -> None:
        super()._weight_advantages(inputs, logps, states)
        tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        valid = logps[inputs["completion_mask"].bool()]
        self.updates.append((tensors, self._token_logs.window.divergence[-1], valid, logits(self.model, inputs)))


def trained(model: Any, folder: Path, **settings: Any) -> Recorder:
    """A trainer of a model, which is saved in the folder, after four updates."""
    trainer = built(model, folder, **settings)
    trainer.train()
    return trainer


def built(model: Any, folder: Path, kind: type[Recorder] = Recorder, **settings: Any) -> Recorder:
    model.generation_config.update(eos_token_id=2, pad_token_id=0)
    path = folder / "model"
    model.save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    small = {"max_completion_length": 5, "learning_rate": 1e-3, "divergence": "js", "logging_steps": 10}
    args = DivergenceGRPOConfig(**{**SETTINGS, "output_dir": str(folder / "out"), **small, **settings})
    return kind(str(path), digit_reward, args, Dataset.from_dict({"prompt": PROMPTS}))


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        pytest.param("cohere", {"logit_scale": 0.3}, id="factor"),
        pytest.param("minicpm3", {"dim_model_base": 8}, id="divisor of the state"),
        pytest.param("gemma2", {"final_logit_softcapping": 2.0}, id="cap"),
        pytest.param("phi", {}, id="bias"),
        pytest.param("opt", {"word_embed_proj_dim": 16, "dropout": 0.0}, id="projection out"),
        pytest.param("gpt2", NO_DROPOUT, id="positions that TRL does not give"),
    ],
)
def test_divergence_from_the_base_and_the_rollout_policy(
    model_type: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    trainer = trained(tiny_model(model_type, **fields), tmp_path, divergence_reference="base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    for inputs, divergence, logps, policy in trainer.updates:
        expected = js_divergence(logits(base, inputs), policy)
        torch.testing.assert_close(divergence.double(), expected, atol=1e-5, rtol=1e-3)
        ids = inputs["completion_ids"][inputs["completion_mask"].bool()]
        own_logps = torch.log_softmax(policy, -1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(logps.double(), own_logps, atol=1e-4, rtol=1e-4)
    assert float(trainer.updates[-1][1].max()) > 1e-6

    old = trained(tiny_model(model_type, **fields), tmp_path / "old", steps_per_generation=1, num_iterations=2)
    first, second = old.updates[:2]  # of the same completions
    assert torch.equal(first[0]["completion_ids"], second[0]["completion_ids"])
    assert float(first[1].max()) < 1e-5, "the policy has not moved since its rollout"
    torch.testing.assert_close(second[1].double(), js_divergence(first[3], second[3]), atol=1e-5, rtol=1e-3)
    assert float(second[1].max()) > 1e-6


def test_states_from_a_checkpoint_get_the_form_that_fits_them(tmp_path: Path) -> None:
    trainer = trained(tiny_model("minicpm3", dim_model_base=8), tmp_path, divergence_reference="base", max_steps=1)
    reference: Any = trainer._reference
    assert reference._reference_form == (1.0, None), "the states are divided before the head, where they are recorded"
    assert head_of(trainer.model).scale == 0.25
    reference._reference_form = None
    reference._fit_reference(torch.tensor([[5, 6, 7]]))
    assert reference._reference_form == (1.0, None)


@pytest.mark.parametrize("settings", [{"bf16": True}, {"model_init_kwargs": {"dtype": "bfloat16"}}])
def test_rounding_to_16_bits_is_no_mismatch(settings: dict[str, Any], tmp_path: Path) -> None:
    for model_type in ("llama", "gemma2"):
        folder = tmp_path / model_type
        assert trained(tiny_model(model_type), folder, divergence_reference="base", **settings).updates


@pytest.mark.parametrize("divergence", ["js", "k3"])
@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        pytest.param("modernbert-decoder", {}, id="dense and norm"),
        pytest.param("recurrent_gemma", {"logits_soft_cap": 2.0}, id="cap of another name"),
        pytest.param("mpt", {"logit_scale": 0.5}, id="ignored factor"),
    ],
)
def test_models_that_trl_would_train_on_another_distribution(
    model_type: str, fields: dict[str, Any], divergence: str, tmp_path: Path
) -> None:
    model = tiny_model(model_type, **fields)
    with pytest.raises(ValueError, match=f"TRL's log-probabilities of a {type(model).__name__} differ from those of"):
        trained(model, tmp_path, divergence=divergence)


@pytest.mark.parametrize("divergence", ["k3", "js"])
def test_a_policy_without_probabilities_is_refused(divergence: str, tmp_path: Path) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"^The logits of LlamaForCausalLM are not finite"):
        trained(model, tmp_path, divergence=divergence)


@pytest.mark.parametrize("divergence", ["k3", "js"])
def test_a_policy_that_loses_its_probabilities_is_stopped(divergence: str, tmp_path: Path) -> None:
    class Broken(Recorder):
        def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            loss = super().training_step(*args, **kwargs)
            with torch.no_grad():
                self.model.model.norm.weight.fill_(torch.nan)
            return loss

    trainer = built(tiny_model("llama"), tmp_path, Broken, divergence=divergence)
    with pytest.raises(ValueError, match=r"At update 2 the log-probabilities of LlamaForCausalLM are NaN at \d+ of"):
        trainer.train()


def test_an_encoder_that_reads_later_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a causal language model"):
        trained(tiny_model("bert", is_decoder=False), tmp_path, divergence="k3")


@pytest.mark.parametrize("model_type", ["bart", "rwkv"])
def test_models_that_read_the_padding_as_text(model_type: str, tmp_path: Path) -> None:
    model = tiny_model(model_type)
    model.generation_config.forced_eos_token_id = None  # BART's own, which is refused before
    with pytest.raises(ValueError, match=f"{type(model).__name__} counts the padding that TRL puts before"):
        trained(model, tmp_path)


def test_a_balance_of_experts_that_trl_cannot_compute(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"GraniteMoeForCausalLM .*num_experts.* set router_aux_loss_coef=0"):
        trained(tiny_model("granitemoe"), tmp_path / "refused")
    assert trained(tiny_model("granitemoe"), tmp_path / "advised", router_aux_loss_coef=0.0, max_steps=1).updates


def test_quantized_heads(tmp_path: Path) -> None:
    trainer = built(tiny_model("llama"), tmp_path, divergence_reference="base")
    reference: Any = trainer._reference
    for model in (perturbed(trainer.model, 0.03), reference.base):
        model.lm_head = Linear4bit(model.lm_head.weight.detach())
    batch = batch_of([Trajectory(0, 0, [5, 6, 7], [8, 9, 10, 2])])
    trainer.model.eval()
    js = reference.trajectory_statistics(batch, ["js"], 1.0, 1.0)["js"]
    with torch.no_grad():
        both = [model(input_ids=batch.input_ids).logits[0, 2:-1].double() for model in (reference.base, trainer.model)]
    torch.testing.assert_close(js.double(), js_divergence(*both), atol=1e-5, rtol=1e-3)
    with pytest.raises(ValueError, match="TRL cannot compute the log-probabilities of a LlamaForCausalLM"):
        trainer.train()


def test_logits_of_an_unknown_kind_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = LlamaForCausalLM.forward

    def sharpened(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = forward(self, *args, **kwargs)
        output.logits = output.logits.sign() * output.logits.abs() ** 1.1
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", sharpened)
    with pytest.raises(ValueError, match="TRL's log-probabilities of a LlamaForCausalLM differ"):
        trained(tiny_model("llama"), tmp_path)
