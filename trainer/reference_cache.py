"""Where a generation's reference states stay until they are used: host memory, valid tokens only, row by row.

TRL shuffles a generation's tensors and splits them into micro-batches, and a tensor is copied whole on the way. A list
with one tensor per completion goes through both without a copy.
"""

from collections.abc import Sequence

import torch

GIB = 2**30

BLOCK = 256 * 2**20
"""Bytes of one allocation, unless a single row needs more: a pinned one takes the next power of two of bytes."""


def host_rows(lengths: Sequence[int], width: int, dtype: torch.dtype, *, pinned: bool) -> list[torch.Tensor]:
    """Tensors `(length, width)` in host memory, not initialized, many of them in one allocation.

    Args:
        lengths: tokens of each row.
        width: hidden size.
        dtype: of the states.
        pinned: whether the memory is pinned, from which an accelerator copies faster.
    """
    most = BLOCK // (width * dtype.itemsize)  # tokens
    blocks: list[list[int]] = []
    for length in lengths:
        if blocks and sum(blocks[-1]) + length <= most:
            blocks[-1].append(length)
        else:
            blocks.append([length])
    return [
        row for block in blocks for row in torch.empty(sum(block), width, dtype=dtype, pin_memory=pinned).split(block)
    ]


def on_device(rows: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Rows `(n, H)` each, one after another, as one tensor `(N, H)` on a device."""
    lengths = [len(row) for row in rows]
    packed = torch.empty(sum(lengths), rows[0].shape[1], dtype=rows[0].dtype, device=device)
    for part, row in zip(packed.split(lengths), rows, strict=True):
        part.copy_(row, non_blocking=True)
    return packed


def host_copy(tensor: torch.Tensor, dtype: torch.dtype | None, *, pinned: bool) -> torch.Tensor:
    """A copy of a tensor in host memory, in another dtype if one is given."""
    copy = torch.empty(tensor.shape, dtype=dtype or tensor.dtype, pin_memory=pinned)
    return copy.copy_(tensor.detach())
