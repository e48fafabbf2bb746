"""Exact top-k of long rows, by the largest of blocks: whole vocabularies are what `torch.topk` is slow at on CPU.

Order everywhere: larger first, of equal values the lower index first, which `torch.topk` does not promise.
"""

import numpy
import torch

BLOCK_WIDTH = 64
"""Width of a block; a vocabulary's last block may be shorter."""


def block_maxima(values: torch.Tensor) -> torch.Tensor:
    """The largest value of each block, `(N, ceil(V / BLOCK_WIDTH))`, of values `(N, V)`."""
    size = values.shape[-1]
    whole = size // BLOCK_WIDTH * BLOCK_WIDTH
    maxima = values[:, :whole].unflatten(-1, (-1, BLOCK_WIDTH)).amax(dim=-1) if whole else values[:, :0]
    if whole < size:
        maxima = torch.cat([maxima, values[:, whole:].amax(dim=-1, keepdim=True)], dim=-1)
    return maxima


def top_k(values: torch.Tensor, k: int, maxima: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The `k` first values of each row and their indices, `(N, min(k, V))` each, in order.

    Only the `k` blocks that come first by their maxima can hold them: an element elsewhere has `k` elements before it.

    Args:
        values: `(N, V)`, without NaN.
        k: at least 1.
        maxima: `block_maxima(values)`, if already there.
    """
    size = values.shape[-1]
    k = min(k, size)
    maxima = block_maxima(values) if maxima is None else maxima
    blocks, tied_blocks = _first(maxima, k)
    ids, valid = _block_indices(blocks, size)
    candidates = values.gather(-1, ids).masked_fill_(~valid, -torch.inf)
    candidate_index, tied = _first(candidates, k)
    top_values, top_ids = candidates.gather(-1, candidate_index), ids.gather(-1, candidate_index)
    unsure = (tied | tied_blocks).nonzero().squeeze(-1)
    if len(unsure):
        top_values[unsure], top_ids[unsure] = _stable_top_k(values[unsure], k, maxima[unsure])
    return top_values, top_ids


def _first(values: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices `(N, k)` of the largest, and whether equal values leave their choice or order open `(N,)`."""
    top = values.topk(min(k + 1, values.shape[-1]), dim=-1)
    tied = (top.values[:, 1:] == top.values[:, :-1]).any(dim=-1)
    return top.indices[:, :k], tied


def _stable_top_k(values: torch.Tensor, k: int, maxima: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`top_k` where values are equal."""
    blocks = torch.sort(maxima, dim=-1, descending=True, stable=True).indices[:, :k]
    # ascending ids, so that a stable sort of the candidates puts the lower id first
    index, valid = _block_indices(blocks.sort(dim=-1).values, values.shape[-1])
    candidates = values.gather(-1, index).masked_fill_(~valid, -torch.inf)
    ordered = torch.sort(candidates, dim=-1, descending=True, stable=True)
    candidate_index = ordered.indices[:, :k]
    return ordered.values[:, :k], index.gather(-1, candidate_index)


def ranks(
    values: torch.Tensor, index: torch.Tensor, top: tuple[torch.Tensor, torch.Tensor], strip: int
) -> torch.Tensor:
    """Rank `(N,)` int64 of the elements `index` `(N,)` in their rows of values `(N, V)`, 1 for the first.

    Args:
        values: `(N, V)`, without NaN.
        index: `(N,)`.
        top: `top_k(values, k)` for some k: most looked-for elements are among the first.
        strip: rows of V values to hold at a time for the others.
    """
    hits = top[1] == index.unsqueeze(-1)  # (N, k)
    rank = hits.int().argmax(dim=-1) + 1
    missing = (~hits.any(dim=-1)).nonzero().squeeze(-1)
    for start in range(0, len(missing), strip):
        part = missing[start : start + strip]
        rank[part] = _counted_ranks(values[part], index[part])
    return rank


def _counted_ranks(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    value = values.gather(-1, index.unsqueeze(-1))
    before, from_it_on = _counts(values, value)
    rank = 1 + before
    tied = (from_it_on > before + 1).nonzero().squeeze(-1)
    if len(tied):
        lower = torch.arange(values.shape[-1], device=values.device) < index[tied].unsqueeze(-1)
        rank[tied] += torch.count_nonzero((values[tied] == value[tied]) & lower, dim=-1)
    return rank


def _counts(values: torch.Tensor, bound: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The numbers of values `(n, V)` above a row's bound `(n, 1)`, and at or above it, `(n,)` each."""
    if values.device.type != "cpu":
        return torch.count_nonzero(values > bound, dim=-1), torch.count_nonzero(values >= bound, dim=-1)
    rows = zip(values.detach().numpy(), bound.detach().numpy(), strict=True)  # numpy compares ten times faster
    counts = [(numpy.count_nonzero(row > limit), numpy.count_nonzero(row >= limit)) for row, limit in rows]
    return torch.tensor([count[0] for count in counts]), torch.tensor([count[1] for count in counts])


def _block_indices(blocks: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices `(N, k * BLOCK_WIDTH)` of the elements of blocks `(N, k)`, and which of them are inside the row."""
    index = (blocks.unsqueeze(-1) * BLOCK_WIDTH + torch.arange(BLOCK_WIDTH, device=blocks.device)).flatten(1)
    valid = index < size
    return index.clamp(max=size - 1), valid
