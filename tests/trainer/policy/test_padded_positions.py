"""Whether a model counts padding as positions: on models of known answer."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.architectures import tiny_model

from tokenshift.trainer.policy.padded_positions import counts_padding, give_positions, positions_of


@pytest.mark.parametrize(
    ("kind", "counts", "counts_nevertheless"),
    [
        ("llama", False, False),  # rotary positions: only distances count
        ("opt", False, False),  # takes its positions from the mask
        ("gpt2", True, False),
        ("bert", True, False),
        ("rwkv", True, True),  # its state reads the padding
        ("bart", True, True),  # takes no positions
    ],
)
def test_padding_that_is_counted(kind: str, counts: bool, counts_nevertheless: bool) -> None:
    model = tiny_model(kind)
    assert counts_padding(model) is counts
    handle = give_positions(model)
    assert counts_padding(model) is counts_nevertheless
    handle.remove()
    assert counts_padding(model) is counts


def test_autocast_rounds_more_than_its_weights() -> None:
    """Weights in float32, products in bfloat16: rounding is no position, a position is none of rounding's."""
    for kind, counts in (("llama", False), ("gpt2", True)):
        model = tiny_model(kind)

        def rounded(model: Any = model, **inputs: Any) -> Any:
            output = model(**inputs)
            noise = torch.randn(
                output.logits.shape, generator=torch.Generator().manual_seed(inputs["input_ids"].numel())
            )
            return SimpleNamespace(logits=output.logits + 0.02 * output.logits.std() * noise)

        assert counts_padding(model, rounded)
        assert counts_padding(model, rounded, torch.bfloat16) is counts


def test_the_model_is_left_as_it_was() -> None:
    model = tiny_model("gpt2").train()
    state = torch.get_rng_state()
    counts_padding(model)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())


def test_positions_count_what_the_mask_leaves() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 1, 1]])
    assert positions_of(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2], [0, 0, 0, 1, 2]]
