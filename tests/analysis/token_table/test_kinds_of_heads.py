"""Models whose logits are more than their last hidden state times a matrix: scored rightly, or refused by name."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from helpers.architectures import perturbed, tiny_model
from helpers.quantized_heads import Linear4bit, QuantLinear
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from tokenshift.analysis import js_divergence, score_trajectories
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.recipes.pocket.make_base import make_tokenizer

TRAJECTORIES = [
    Trajectory(0, 0, [3, 5, 6, 7], [8, 9, 10, 11, 2]),
    Trajectory(1, 0, [5, 6], [9, 10, 12]),
    Trajectory(2, 0, [4, 5, 6, 7, 8, 9], [18, 19, 30, 40, 22, 41, 42]),
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return make_tokenizer()


def largest_error(base: Any, rl: Any, tokenizer: PreTrainedTokenizerBase, temperature: float = 1.0) -> float:
    """The largest error of log-probabilities and JS, against each trajectory's own logits, alone and in float64."""
    table = score_trajectories(base, rl, TRAJECTORIES, tokenizer, temperature=temperature)
    logits = [
        torch.cat([own_logits(model, trajectory) / temperature for trajectory in TRAJECTORIES]) for model in (base, rl)
    ]
    ids = torch.tensor([token for trajectory in TRAJECTORIES for token in trajectory.completion_ids])
    assert table["token_id"].to_pylist() == ids.tolist()
    expected = {
        name: torch.log_softmax(values, -1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
        for name, values in zip(("logp_base", "logp_rl"), logits, strict=True)
    } | {"js": js_divergence(*logits)}
    return max(float(np.abs(np.array(table[name]) - value.numpy()).max()) for name, value in expected.items())


@torch.no_grad()
def own_logits(model: Any, trajectory: Trajectory) -> torch.Tensor:
    """Float64 `(C, V)`, from a plain forward pass of a trajectory without padding."""
    ids = torch.tensor([trajectory.prompt_ids + trajectory.completion_ids])
    return model(input_ids=ids, use_cache=False).logits[0, len(trajectory.prompt_ids) - 1 : -1].double()


def moved(model: Any) -> Any:
    return perturbed(copy.deepcopy(model), 0.03)


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [("cpmant", {}), ("xlnet", {}), ("xlm", {}), ("roberta", {"is_decoder": False})],
)
def test_models_that_read_later_tokens_are_refused(
    model_type: str, fields: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    model = tiny_model(model_type, **fields)
    with pytest.raises(ValueError, match="is not a causal language model"):
        score_trajectories(model, moved(model), TRAJECTORIES, tokenizer)


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        pytest.param("llama", {}, id="plain"),
        pytest.param("gpt2", {"tie_word_embeddings": True}, id="tied"),
        pytest.param("phi", {}, id="bias"),
        pytest.param("cohere", {"logit_scale": 0.3}, id="factor"),
        pytest.param("granite", {"logits_scaling": 4.0}, id="divisor"),
        pytest.param("minicpm3", {"dim_model_base": 8}, id="divisor of the state"),
        pytest.param("mpt", {"logit_scale": 0.5}, id="ignored factor"),
        pytest.param("gemma2", {"final_logit_softcapping": 2.0}, id="cap"),
        pytest.param("recurrent_gemma", {"logits_soft_cap": 2.0}, id="cap of another name"),
        pytest.param("llama", {"final_logit_softcapping": 2.0}, id="ignored cap"),
        pytest.param("modernbert-decoder", {}, id="dense and norm"),
        pytest.param("bert", {}, id="transform of a masked LM"),
        pytest.param("opt", {"word_embed_proj_dim": 16}, id="projection out"),
        pytest.param("bart", {}, id="decoder of an encoder-decoder"),
        pytest.param("inkling_text", {"unpadded_vocab_size": 78}, id="padded rows dropped"),
        pytest.param("xlstm", {}, id="recurrent"),
        pytest.param("llama4", {}, id="forward that goes past the base model"),
        pytest.param("gemma4", {}, id="config of layers"),
    ],
)
def test_scored_rightly(model_type: str, fields: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> None:
    base = tiny_model(model_type, **fields)
    assert largest_error(base, moved(base), tokenizer) < 1e-4


class Llama(LlamaForCausalLM):
    """A Llama whose logits are `last(logits)`."""

    last: Any = staticmethod(lambda logits: logits)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = self.last(output.logits)
        return output


def llama(kind: type[LlamaForCausalLM] = Llama, **fields: Any) -> Any:
    config = LlamaConfig(
        vocab_size=80,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        **fields,
    )
    torch.manual_seed(0)
    return perturbed(kind(config).eval(), 0.15)


class Sharpened(Llama):
    last = staticmethod(lambda logits: logits.sign() * logits.abs() ** 1.1)


class Slightly(Llama):
    last = staticmethod(lambda logits: 1.03 * logits)


class Named(Llama):
    last = staticmethod(lambda logits: 0.7 * logits)


class Unhooked(Llama):
    """A Llama that projects without its head's module."""

    def forward(self, input_ids: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        output.logits = torch.nn.functional.linear(output.last_hidden_state, self.lm_head.weight)
        return output


class Twice(Llama):
    """A Llama that calls its head for another thing as well."""

    def forward(self, input_ids: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        output.logits = self.lm_head(output.last_hidden_state)
        self.lm_head(output.last_hidden_state * 2)
        return output


class NormHead(torch.nn.Linear):
    """A head that normalises its weight."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(hidden, 3 * torch.nn.functional.normalize(self.weight))


@pytest.mark.parametrize("kind", [Sharpened, Slightly])
def test_unknown_logits_are_refused_by_name(kind: type[Llama], tokenizer: PreTrainedTokenizerBase) -> None:
    base = llama(kind)
    with pytest.raises(ValueError, match=f"^{kind.__name__} makes its logits in a way that is not known here.*differ"):
        score_trajectories(base, base, TRAJECTORIES, tokenizer)


def test_broken_weights_are_named(tokenizer: PreTrainedTokenizerBase) -> None:
    base, rl = llama(), llama()
    with torch.no_grad():
        rl.model.norm.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"^The logits of Llama are not finite, .* load it with dtype float32 or bf"):
        score_trajectories(base, rl, TRAJECTORIES, tokenizer)


def test_broken_states_are_named_wherever_they_are(tokenizer: PreTrainedTokenizerBase) -> None:
    base, rl = llama(), llama()
    rl.model.embed_tokens.weight.data[11] = torch.nan  # read at one position of one trajectory
    assert score_trajectories(base, rl, TRAJECTORIES[1:2], tokenizer).num_rows == 3
    with pytest.raises(ValueError, match=r"^The statistics are NaN for some tokens: the hidden states or a head hold"):
        score_trajectories(base, rl, TRAJECTORIES, tokenizer)


def test_a_right_model_in_16_bits_is_not_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        for model_type in ("llama", "gemma2", "cohere", "phi"):
            model = tiny_model(model_type).to(dtype)
            assert score_trajectories(model, moved(model), TRAJECTORIES, tokenizer).num_rows == 15


@pytest.mark.parametrize("kind", [Named, Unhooked, Twice])
def test_what_can_be_found_out_is_scored(kind: type[Llama], tokenizer: PreTrainedTokenizerBase) -> None:
    base = llama(kind, my_output_scale=0.7)
    assert largest_error(base, moved(base), tokenizer, temperature=0.7) < 1e-4


def test_a_head_that_is_no_matrix_of_its_weight(tokenizer: PreTrainedTokenizerBase) -> None:
    base = llama()
    head = NormHead(32, 80, bias=False)
    head.weight = base.lm_head.weight
    base.lm_head = head
    assert largest_error(base, moved(base), tokenizer) < 1e-4


# Quantized heads -----------------------------------------------------------------------------------------------------


class Linear8bitLt(torch.nn.Linear):
    """A head that rounds its input to 8 bits, by the name of bitsandbytes."""


@pytest.mark.parametrize("kind", [Linear4bit, QuantLinear])
def test_a_quantized_head_is_read(kind: type[Linear4bit], tokenizer: PreTrainedTokenizerBase) -> None:
    base, rl = llama(), moved(llama())
    base.lm_head, rl.lm_head = kind(base.lm_head.weight.detach()), kind(rl.lm_head.weight.detach())
    assert largest_error(base, rl, tokenizer) < 1e-4


def test_a_head_that_rounds_its_input_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    base = llama()
    base.lm_head = Linear8bitLt(32, 80, bias=False)
    with pytest.raises(
        ValueError, match=r"The LM head of Llama is a Linear8bitLt.*llm_int8_skip_modules=\['lm_head'\]"
    ):
        score_trajectories(base, base, TRAJECTORIES, tokenizer)


# Vocabularies --------------------------------------------------------------------------------------------------------


def test_tokens_beyond_the_other_models_head(tokenizer: PreTrainedTokenizerBase) -> None:
    base, rl = llama(), llama()
    rl.resize_token_embeddings(96)
    assert score_trajectories(base, rl, TRAJECTORIES, tokenizer).num_rows == 15
    for trajectory in (Trajectory(7, 0, [90], [5]), Trajectory(7, 0, [5], [85])):
        with pytest.raises(ValueError, match=r"Problem 7 has token (90|85), but only the first 80 are in both models"):
            score_trajectories(base, rl, [trajectory], tokenizer)


def test_a_mask_on_the_logits_hides_no_other_change(tokenizer: PreTrainedTokenizerBase) -> None:
    base, rl = tiny_model("llama", 0), tiny_model("llama", 1)
    forward = rl.forward

    def masked(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        output.logits = output.logits * 3
        output.logits[..., 70:] = -torch.inf
        return output

    rl.forward = masked
    with pytest.raises(ValueError, match="LlamaForCausalLM makes its logits in a way that is not known here"):
        score_trajectories(base, rl, TRAJECTORIES, tokenizer)
