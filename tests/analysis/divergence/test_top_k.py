"""Exact top-k against a stable sort of the whole row, with ties and -inf."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenshift.analysis.divergence.top_k import BLOCK_WIDTH, ranks, top_k


@given(
    size=st.sampled_from([1, 2, 63, 64, 65, 200, 1000]),
    k=st.integers(1, 40),
    levels=st.sampled_from([1, 2, 5, 1000]),
    seed=st.integers(0, 1000),
    lowest=st.booleans(),
)
def test_top_k_is_the_stable_sorts(size: int, k: int, levels: int, seed: int, lowest: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(levels, (5, size), generator=generator).float()
    if lowest:
        values[values == 0] = -torch.inf
    expected = torch.sort(values, dim=-1, descending=True, stable=True)
    ours = top_k(values, k)
    assert torch.equal(ours[0], expected.values[:, :k])
    assert torch.equal(ours[1], expected.indices[:, :k])
    index = torch.randint(size, (5,), generator=generator)
    rank = (expected.indices == index.unsqueeze(-1)).int().argmax(-1) + 1
    assert torch.equal(ranks(values, index, ours, strip=2), rank)


@pytest.mark.parametrize("size", [BLOCK_WIDTH - 1, BLOCK_WIDTH, 3 * BLOCK_WIDTH + 1])
def test_no_rows(size: int) -> None:
    assert top_k(torch.empty(0, size), 3)[0].shape == (0, 3)
