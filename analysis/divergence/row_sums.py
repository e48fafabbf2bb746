"""Sums over rows that do not depend on how a batch is cut."""

from importlib.util import find_spec

import torch

from tokenshift.analysis.divergence.expectations import RowSums, row_sums_torch


def row_sums(base: torch.Tensor, rl: torch.Tensor, wanted: frozenset[str], *, strip: int, overwrite: bool) -> RowSums:
    """Sums over rows of logits `(n, V)` float32: by a kernel on CUDA, where triton is there, else by torch.

    Args:
        base, rl: the two models' logits.
        wanted: names; those outside `EXPECTATIONS` are not looked at.
        strip: rows at a time; torch makes matrices of their size, which stay in cache on CPU.
        overwrite: whether the logits may be overwritten, which saves memory.
    """
    if base.is_cuda and find_spec("triton") is not None:
        from tokenshift.analysis.divergence.expectations_triton import row_sums_triton  # which imports this module

        return row_sums_triton(base, rl, wanted)
    pairs = zip(base.split(strip), rl.split(strip), strict=True)
    parts = [row_sums_torch(*pair, wanted, overwrite=overwrite) for pair in pairs]
    return RowSums(
        torch.cat([part.highest_base for part in parts]),
        torch.cat([part.highest_rl for part in parts]),
        torch.cat([part.log_z_base for part in parts]),
        torch.cat([part.log_z_rl for part in parts]),
        {name: torch.cat([part.means[name] for part in parts]) for name in parts[0].means},
    )
