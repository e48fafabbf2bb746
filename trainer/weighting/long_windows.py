"""Samples of values too long to be kept whole: each value is rounded to a few binary digits, and equal ones counted.

Their number then grows with the spread of the values, and no longer with the number of tokens.
"""

import torch
from accelerate import Accelerator

MOST_VALUES = 2**21
"""Values that a rank keeps whole between two logs."""

DIGITS = 12
"""Binary digits of a rounded value, which is within 2^-13 (0.012 %) of the value itself."""

Counted = tuple[torch.Tensor, torch.Tensor]
"""Different values `(n,)` float32, ascending, and how often each occurs `(n,)` int64."""


def rounded(values: torch.Tensor) -> torch.Tensor:
    """Float32 values `(n,)` rounded to `DIGITS` binary digits; infinity for all that are not finite."""
    dropped = 23 - DIGITS  # of a float32's stored digits
    bits = values.float().contiguous().view(torch.int32)
    near = ((bits + (1 << (dropped - 1))) >> dropped << dropped).view(torch.float32)
    near = torch.where(near.isfinite(), near, values.float())  # the largest numbers
    return near.masked_fill(~values.isfinite(), torch.inf)


def counted(*parts: torch.Tensor | Counted) -> Counted:
    """Values of several samples, whole ones and counted ones, rounded and counted."""
    values, counts = [], []
    for part in parts:
        if isinstance(part, torch.Tensor):
            part = (rounded(part), torch.ones(len(part), dtype=torch.int64, device=part.device))
        values.append(part[0])
        counts.append(part[1])
    different, index = torch.unique(torch.cat(values), return_inverse=True)
    totals = torch.zeros(len(different), dtype=torch.int64, device=different.device)
    return different, totals.index_add_(0, index, torch.cat(counts))


def gathered_on_main(accelerator: Accelerator, values: torch.Tensor) -> torch.Tensor | None:
    """All ranks' values in rank order, in host memory of the main process; None on the others.

    Args:
        accelerator: of the run; every rank must call it.
        values: this rank's `(n,)`; n may differ between ranks.
    """
    if accelerator.num_processes == 1:
        return values.cpu()
    sizes = accelerator.gather(torch.tensor([len(values)], device=values.device)).tolist()
    if not any(sizes):
        return values.cpu() if accelerator.is_main_process else None
    padded = values.new_zeros(max(sizes))
    padded[: len(values)] = values
    parts = [torch.empty_like(padded) for _ in sizes] if accelerator.is_main_process else None
    torch.distributed.gather(padded, parts, dst=0)
    if parts is None:
        return None
    return torch.cat([part[:size].cpu() for part, size in zip(parts, sizes, strict=True)])
