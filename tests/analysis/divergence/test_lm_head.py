"""LM heads as data: parameters that several heads share are gathered once."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from tokenshift.analysis.divergence.lm_head import LMHead, head_of, possible_forms, whole_heads


class Zero3:
    """DeepSpeed's gathering of sharded parameters, as far as it matters: it refuses to gather one twice."""

    def __init__(self) -> None:
        self.gathered: list[list[int]] = []
        self._open: set[int] = set()

    @contextmanager
    def GatheredParameters(self, parameters: list[torch.Tensor]) -> Iterator[None]:
        ids = [id(parameter) for parameter in parameters]
        assert len(set(ids)) == len(ids)
        if self._open & set(ids):
            raise RuntimeError("Nested GatheredParameters contexts for the same parameter")
        self.gathered.append(ids)
        self._open |= set(ids)
        try:
            yield
        finally:
            self._open -= set(ids)


def sharded(*shape: int) -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(torch.randn(*shape))
    parameter.ds_id = 0
    return parameter


def test_a_shared_parameter_is_gathered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    zero = Zero3()
    monkeypatch.setitem(sys.modules, "deepspeed", SimpleNamespace(zero=zero))
    weight, other, bias = sharded(5, 3), sharded(5, 3), sharded(5)
    with whole_heads(LMHead(weight, bias), LMHead(weight, scale=2.0), LMHead(other)) as heads:
        assert [head.scale for head in heads] == [1.0, 2.0, 1.0]
        assert torch.equal(heads[1].weight, weight)
        assert torch.equal(heads[2].weight, other)
        assert heads[0].bias is not None
        assert not heads[0].weight.requires_grad
    assert zero.gathered == [[id(weight), id(bias), id(other)]]


def test_numbers_that_may_be_a_scale_or_a_cap() -> None:
    numbers = {
        "logit_scale": 0.5,
        "router_logit_cap": 8.0,
        "hidden_size": 4,
        "logits_note": "text",
        "output_flag": True,
    }
    config = SimpleNamespace(model_type="made", to_dict=lambda: numbers, **numbers)
    assert possible_forms(config) == [(0.5, None), (1.0, None), (2.0, None), (0.5, 8.0), (1.0, 8.0), (2.0, 8.0)]


def test_no_head_and_a_head_with_an_adapter() -> None:
    with pytest.raises(ValueError, match="SimpleNamespace has no LM head"):
        head_of(SimpleNamespace(get_output_embeddings=lambda: None))
    adapted = torch.nn.Linear(2, 2)
    adapted.base_layer = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="has an adapter of its own"):
        head_of(SimpleNamespace(get_output_embeddings=lambda: adapted))
