"""Sizes that plans go by, against real models, caches and forward passes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.architectures import tiny_model
from helpers.pocket_models import BASE
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, LlamaConfig

from tokenshift.analysis.cross_sampling.cached_policy import CachedPolicy
from tokenshift.analysis.cross_sampling.intervention import Intervention, decide
from tokenshift.analysis.divergence.hidden_states import backbone
from tokenshift.analysis.plan.analysis_memory import DECIDE_COPIES, DRAW_COPIES
from tokenshift.analysis.plan.forward_pass import ForwardPass, _Alive, most_alive
from tokenshift.analysis.sampling.generators import Sampling, _CoupledDraw
from tokenshift.analysis.sampling.reserved_cache import reserved_cache, slots_for

SMOLLM2 = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    tie_word_embeddings=True,
    max_position_embeddings=8192,
)


@pytest.mark.parametrize(("name", "published"), [("pocket", None), ("smollm2", 134_515_008)])
def test_parameters_are_the_models_own(name: str, published: int | None) -> None:
    config: Any = SMOLLM2 if name == "smollm2" else AutoConfig.from_pretrained(BASE)
    sizes = ForwardPass(config, torch.bfloat16).sizes
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sizes.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert sizes.parameters == (published or sizes.parameters)
    assert sizes.weights == 2 * sizes.parameters
    assert (sizes.layers, sizes.hidden, sizes.vocabulary) == (
        config.num_hidden_layers,
        config.hidden_size,
        config.vocab_size,
    )


def cache_bytes(cache: Any) -> int:
    """Bytes of a cache's keys and values, spare slots included."""
    tensors = [states for layer in cache.layers for states in (layer.keys, layer.values)]
    return sum(states.untyped_storage().nbytes() for states in tensors)


def test_caches_take_what_is_planned() -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(BASE).eval()
    sizes = ForwardPass(model.config, torch.float32).sizes
    rows, prompt, longest = 3, 20, 70
    plain, reserved = DynamicCache(config=model.config), reserved_cache(model.config)
    with torch.no_grad():
        for cache in (plain, reserved):
            model(input_ids=torch.ones(rows, prompt, dtype=torch.long), past_key_values=cache)
    assert cache_bytes(plain) == rows * prompt * sizes.cache_per_token
    assert cache_bytes(reserved) == rows * slots_for(prompt, prompt) * sizes.cache_per_token
    with torch.no_grad():
        for _ in range(longest - prompt):
            model(input_ids=torch.ones(rows, 1, dtype=torch.long), past_key_values=reserved)
    assert reserved.get_seq_length() == longest
    assert cache_bytes(reserved) == rows * slots_for(prompt, longest) * sizes.cache_per_token


def test_rows_that_end_or_begin_cost_a_copy_of_one_layer() -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(BASE).eval()
    rows, tokens = 4, 40
    sizes = ForwardPass(model.config, torch.float32).sizes
    layer = rows * tokens * sizes.cache_per_token // sizes.layers
    policy, mask = CachedPolicy(model), torch.ones(rows, tokens, dtype=torch.bool)
    changes: list[Callable[[], None]] = [
        lambda: policy.keep(torch.tensor([3, 1, 0, 2])),
        lambda: policy.arrange(torch.arange(tokens - 1).expand(rows, -1)),
    ]
    with _Alive() as alive:
        policy.append(torch.ones(rows, tokens, dtype=torch.long), mask, keep=0)
        for change in changes:
            before = alive.most = alive.now
            change()
            assert 0.4 * layer < alive.most - before <= layer  # keys or values at a time; old ones go as others come


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_a_forward_pass_takes_what_is_planned(architecture: str) -> None:
    model = tiny_model(architecture).eval()
    forward, tokens = ForwardPass(model.config, torch.float32), 96

    def read(rows: int) -> None:
        ids, mask = torch.zeros(rows, tokens, dtype=torch.long), torch.ones(rows, 1, tokens, tokens, dtype=torch.bool)
        backbone(model)(input_ids=ids, attention_mask=mask, use_cache=False)

    with torch.no_grad():
        for rows in (1, 4):
            seen = most_alive(lambda rows=rows: read(rows))  # type: ignore[misc]
            assert forward.of(rows, tokens) == pytest.approx(seen, rel=0.05)


def test_memory_is_followed() -> None:
    def call() -> None:
        first = torch.ones(1000)
        second = first.view(10, 100) + 1  # a view takes none
        del first
        second.mul_(2)
        torch.zeros(500)

    assert most_alive(call) == 4 * (1000 + 1000)


@pytest.mark.parametrize("top_p", [0.7, 1.0])
def test_logits_of_a_step_are_at_most_those_planned(top_p: float) -> None:
    rows, size = 4, 20_000
    keys = [(0, row) for row in range(rows)]
    flat = torch.linspace(0, 1e-3, size).repeat(rows, 1)  # top-p sets are wide, which takes the most
    sampling, logits = Sampling(top_p=top_p), flat.clone()
    draw = _CoupledDraw(keys, 1, sampling)
    seen = most_alive(lambda: draw(torch.zeros(rows, 1, dtype=torch.long), logits))
    assert 0.6 < seen / (rows * size * 4 * (DRAW_COPIES - 2)) <= 1  # without the logits and their copy
    base, rl = (torch.log_softmax(each, dim=-1) for each in (flat, flat.flip(-1)))
    plan = Intervention("js_top_p", 0.1)
    seen = most_alive(lambda: decide(base, rl, keys, [0] * rows, sampling, plan))
    assert 0.6 < seen / (rows * size * 4 * (DECIDE_COPIES - 4)) <= 1


def test_a_model_that_cannot_be_followed_is_told_in_one_line() -> None:
    wrong = LlamaConfig(hidden_act="nothing")
    with pytest.raises(ValueError, match="The memory of a Llama model cannot be told from its config"):
        ForwardPass(wrong, torch.float32).of(1, 8)
