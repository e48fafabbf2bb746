"""Exact top-k of long rows, by the largest of blocks: sorting whole vocabularies is what `torch.topk` is slow at on
CPU.

Order everywhere: larger first, of equal values the lower index first.
"""

import torch

BLOCK = 64
"""Width of a block; a vocabulary's last block may be shorter."""


def block_maxima(values: torch.Tensor) -> torch.Tensor:
    """The largest value of each block, `(N, ceil(V / BLOCK))`, of values `(N, V)`."""
    size = values.shape[-1]
    whole = size // BLOCK * BLOCK
    maxima = values[:, :whole].unflatten(-1, (-1, BLOCK)).amax(dim=-1) if whole else values[:, :0]
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
    if k == 1:  # no sort: argmax of the first block that holds the maximum
        block = first_argmax(maxima)
        index, valid = _block_indices(block.unsqueeze(-1), size)
        candidates = values.gather(-1, index).masked_fill(~valid, -torch.inf)
        place = first_argmax(candidates).unsqueeze(-1)
        return candidates.gather(-1, place), index.gather(-1, place)
    blocks = torch.sort(maxima, dim=-1, descending=True, stable=True).indices[:, :k]
    # ascending ids, so that a stable sort of the candidates puts the lower id first
    index, valid = _block_indices(blocks.sort(dim=-1).values, size)
    candidates = values.gather(-1, index).masked_fill(~valid, -torch.inf)
    ordered = torch.sort(candidates, dim=-1, descending=True, stable=True)
    place = ordered.indices[:, :k]
    return ordered.values[:, :k], index.gather(-1, place)


def first_argmax(values: torch.Tensor) -> torch.Tensor:
    """Index of the largest value of each row `(N,)`, the lowest of equals (which `torch.argmax` does not promise)."""
    size = values.shape[-1]
    countdown = torch.arange(size, 0, -1, device=values.device, dtype=torch.int32)
    return size - ((values == values.amax(dim=-1, keepdim=True)) * countdown).amax(dim=-1).long()


def _block_indices(blocks: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices `(N, k * BLOCK)` of the elements of blocks `(N, k)`, and which of them are inside the row."""
    index = (blocks.unsqueeze(-1) * BLOCK + torch.arange(BLOCK, device=blocks.device)).flatten(1)
    valid = index < size
    return index.clamp(max=size - 1), valid
