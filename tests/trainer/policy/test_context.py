"""Texts that fit the policy, with the engine that samples them."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import PartialState
from transformers import Phi3Config, Qwen2Config

from tokenshift.trainer.policy.context import check_vllm_context

FACTORS = {"short_factor": [1.0] * 8, "long_factor": [8.0] * 8, "rope_theta": 1e4}
SIZES = {"hidden_size": 32, "num_attention_heads": 2, "max_position_embeddings": 128}
SWITCHING = Phi3Config(
    **SIZES,
    original_max_position_embeddings=12,
    rope_parameters={"rope_type": "longrope", "original_max_position_embeddings": 12, **FACTORS},
)


def settings(**fields: Any) -> Any:
    return SimpleNamespace(**{"use_vllm": True, "vllm_mode": "colocate", "vllm_max_model_length": None, **fields})


@pytest.mark.parametrize("length", [None, 13, 128])
def test_an_engine_that_would_read_with_other_factors_is_refused(length: int | None) -> None:
    with pytest.raises(ValueError, match=rf"^vllm_max_model_length={length}, .* set vllm_max_model_length to 12\.$"):
        check_vllm_context(SWITCHING, settings(vllm_max_model_length=length))


def test_engines_that_read_as_the_policy_does() -> None:
    check_vllm_context(SWITCHING, settings(vllm_max_model_length=12))
    check_vllm_context(SWITCHING, settings(use_vllm=False))
    check_vllm_context(Qwen2Config(max_position_embeddings=128), settings())


def test_a_server_is_started_with_that_length(caplog: pytest.LogCaptureFixture) -> None:
    PartialState()
    with caplog.at_level(logging.WARNING):
        check_vllm_context(SWITCHING, settings(vllm_mode="server"))
    assert "--max_model_len 12" in caplog.text
