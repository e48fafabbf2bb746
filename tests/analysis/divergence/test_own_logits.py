"""A head is taken only if it makes a model's own logits, whatever offset or mask stands beside them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.architectures import tiny_model

from tokenshift.analysis.divergence.hidden_states import HeadInputs
from tokenshift.analysis.divergence.lm_head import head_of, whole_heads
from tokenshift.analysis.divergence.own_logits import fitted_head

STATES = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(0)) * 2


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny_model("llama")


def taken(
    model: Any, change: Callable[[torch.Tensor], torch.Tensor], bias: torch.Tensor | None = None, dtype: Any = None
) -> bool:
    """Whether the model's head, with a bias, passes for one whose own logits are changed in a way."""
    dtype = dtype or torch.float32
    with whole_heads(head_of(model)) as (head,):
        head = type(head)(head.weight.to(dtype), bias)
        states = STATES.to(dtype)
        logits = states[0, -1].double() @ head.weight.double().t() + (0 if bias is None else bias)
        inputs = HeadInputs([states], torch.tensor(0), change(logits).to(dtype), dtype)
        try:
            fitted = fitted_head(model, head, inputs)[1]
        except ValueError:
            return False
    return (fitted.scale, fitted.softcap) == (1.0, None)


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4])
def test_an_offset_hides_no_other_change(llama: Any, offset: float) -> None:
    generator = torch.Generator().manual_seed(1)
    noise, one = torch.randn(80, generator=generator), torch.arange(80) == 7
    assert taken(llama, lambda logits: logits + offset)
    assert not taken(llama, lambda logits: logits + offset + 0.3 * noise)
    assert not taken(llama, lambda logits: logits + offset + 0.3 * one)
    assert not taken(llama, lambda logits: 1.01 * logits + offset)
    assert not taken(llama, lambda logits: 30 * torch.tanh(logits / 30) + offset)
    bias = torch.full((80,), offset)  # the head's own
    assert taken(llama, lambda logits: logits, bias)
    assert taken(llama, lambda logits: logits - offset, bias)
    assert not taken(llama, lambda logits: logits + 0.3 * noise, bias)
    assert not taken(llama, lambda logits: 1.01 * (logits - offset) + offset, bias)


@pytest.mark.parametrize("masked", [-1e4, -1e30, -torch.inf])
@pytest.mark.parametrize("share", [0.1, 0.8])
def test_masked_tokens_hide_no_other_change(llama: Any, masked: float, share: float) -> None:
    bias = torch.zeros(80).masked_fill(torch.arange(80) >= 80 * (1 - share), masked)
    assert taken(llama, lambda logits: logits, bias)
    assert not taken(llama, lambda logits: logits + 0.3 * (torch.arange(80) == 7), bias)
    assert not taken(llama, lambda logits: 1.01 * logits, bias)
    assert not taken(llama, lambda logits: logits + bias), "the mask is not in the head"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_to_16_bits(llama: Any, dtype: torch.dtype) -> None:
    for offset in (0.0, 30.0, -300.0):
        assert taken(llama, lambda logits, offset=offset: logits + offset, dtype=dtype)
    assert not taken(llama, lambda logits: 1.2 * logits, dtype=dtype)
    assert not taken(llama, lambda logits: 5 * torch.tanh(logits / 5), dtype=dtype)


@pytest.mark.parametrize(
    "values", [[torch.nan] * 80, [-torch.inf] * 80, [torch.inf] + [1.0] * 79, [torch.nan] + [1.0] * 79]
)
def test_logits_that_are_not_finite_are_refused(llama: Any, values: list[float]) -> None:
    inputs = HeadInputs([STATES], torch.tensor(0), torch.tensor(values), torch.float32)
    words = "^The logits of LlamaForCausalLM are not finite.*weights are broken, or half precision overflows; load it"
    with whole_heads(head_of(llama)) as (head,), pytest.raises(ValueError, match=words):
        fitted_head(llama, head, inputs)
