"""How long a model's context is, under every name and for every kind of positions."""

from typing import Any

import pytest
import torch
from helpers.architectures import tiny_config, tiny_model
from transformers import LlavaConfig, Phi3Config, PretrainedConfig, Qwen2Config

from tokenshift.analysis.sampling.token_ids import LIMITS, check_context, context_length, context_reason


@pytest.mark.parametrize("name", LIMITS)
def test_every_name_of_the_limit(name: str) -> None:
    assert context_length(PretrainedConfig(**{name: 48})) == 48


@pytest.mark.parametrize(
    ("kind", "fields", "limit"),
    [
        ("gpt2", {"n_positions": 40}, 40),
        ("mpt", {"max_seq_len": 40}, 40),
        ("dbrx", {"max_seq_len": 40}, 40),
        ("bloom", {"seq_length": 40}, None),
        ("falcon", {"max_position_embeddings": 40}, 40),
        ("falcon", {"max_position_embeddings": 40, "alibi": True}, None),
        ("jamba", {"max_position_embeddings": 40}, None),
        ("rwkv", {"context_length": 40}, None),
        ("mamba", {}, None),
        ("roberta", {"max_position_embeddings": 40, "pad_token_id": 1}, 38),
        ("granitemoehybrid", {"max_position_embeddings": 40, "position_embedding_type": "rope"}, 40),
        ("granitemoehybrid", {"max_position_embeddings": 40, "position_embedding_type": "nope"}, None),
    ],
)
def test_kinds_of_positions(kind: str, fields: dict[str, Any], limit: int | None) -> None:
    config = tiny_config(kind)
    for name, value in fields.items():
        setattr(config, name, value)
    assert context_length(config) == limit


@pytest.mark.parametrize(("kind", "beyond"), [("gpt2", False), ("roberta", False), ("bloom", True), ("mamba", True)])
def test_a_model_reads_as_far_as_it_says(kind: str, beyond: bool) -> None:
    """Up to its last position, and without a limit beyond what its config names."""
    model = tiny_model(kind)
    length = context_length(model.config) or 300
    with torch.no_grad():
        assert model(input_ids=torch.full((1, length), 7)).logits.isfinite().all()
        if not beyond:
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=torch.full((1, length + 1), 7))


def test_models_of_several_parts_and_stretched_ones() -> None:
    text = {"model_type": "qwen2", "max_position_embeddings": 4096}
    assert context_length(LlavaConfig(text_config=text)) == 4096
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096, "rope_theta": 1e4}
    assert context_length(Qwen2Config(max_position_embeddings=4096, rope_parameters=yarn)) == 16384
    assert context_length(Qwen2Config(max_position_embeddings=32768, rope_parameters=yarn)) == 32768


def longrope(**fields: Any) -> dict[str, Any]:
    factors = {"short_factor": [1.0] * 8, "long_factor": [8.0] * 8, "rope_theta": 1e4}
    return {"rope_type": "longrope", "original_max_position_embeddings": 12, **factors, **fields}


def test_rotary_factors_that_switch_end_the_context() -> None:
    """Beyond the switch the longest text of a batch would decide the probabilities of all."""
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "max_position_embeddings": 128}
    config = Phi3Config(**sizes, original_max_position_embeddings=12, rope_parameters=longrope())
    assert context_length(config) == 12
    words = (
        r"^model='m' reads 12 tokens \(its rotary factors, rope_type 'longrope', change beyond that many .* not "
        r"supported\); the longest prompt has 4, and with max_new_tokens=9 .* end at 13: lower max_new_tokens to 8\.$"
    )
    with pytest.raises(ValueError, match=words):
        check_context(config, [4], 9, model="model='m'", setting="max_new_tokens")
    check_context(config, [4], 8, model="model='m'", setting="max_new_tokens")


@pytest.mark.parametrize(
    ("rope", "limit"),
    [
        ({"full_attention": longrope(), "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}, 12),
        ({"type": "longrope", "original_max_position_embeddings": 20}, 20),
        (longrope(original_max_position_embeddings=4096), 128),
        ({"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}, 128),
        (None, 128),
    ],
)
def test_where_the_switch_is_written(rope: Any, limit: int) -> None:
    config = PretrainedConfig(max_position_embeddings=128)
    config.rope_parameters = rope
    assert context_length(config) == limit
    assert bool(context_reason(config)) == (limit < 128)


def test_both_numbers_are_in_the_refusal() -> None:
    config = Qwen2Config(max_position_embeddings=4096)
    check_context(config, [1000, 96], 3096, model="model='m'", setting="max_new_tokens")
    words = (
        r"^model='m' reads 4096 tokens; the longest prompt has 1000, and with max_new_tokens=8192 a response could "
        r"end at 9192: lower max_new_tokens to 3096, or lengthen the model"
    )
    with pytest.raises(ValueError, match=words):
        check_context(config, [1000, 96], 8192, model="model='m'", setting="max_new_tokens")
    with pytest.raises(ValueError, match="leave the prompt out"):
        check_context(config, [4096], 1, model="model='m'", setting="max_new_tokens")
