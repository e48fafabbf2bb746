"""Expectations over whole next-token distributions: JS, KLs and entropies of rows of logits.

Shape legend: R rows, V vocabulary.
"""

import math
from dataclasses import dataclass, field

import torch

EXPECTATIONS = frozenset({"js", "forward_kl", "reverse_kl", "entropy_base", "entropy_rl"})
"""The names known here; nats."""


@dataclass
class RowSums:
    """Sums that one pass over rows of both models' logits gives, float32 `(R,)` each.

    Attributes:
        highest_base, highest_rl: the largest logit.
        log_z_base, log_z_rl: log of the sum of exp(logit - largest logit): log p = logit - highest - log_z.
        means: the expectations that were wanted, by name.
    """

    highest_base: torch.Tensor
    highest_rl: torch.Tensor
    log_z_base: torch.Tensor
    log_z_rl: torch.Tensor
    means: dict[str, torch.Tensor] = field(default_factory=dict)


def row_sums_torch(base: torch.Tensor, rl: torch.Tensor, wanted: frozenset[str], *, overwrite: bool) -> RowSums:
    """Sums over rows of logits `(R, V)` float32, finite; a logit of -inf gives NaN.

    Args:
        base, rl: the two models' logits.
        wanted: names; those outside `EXPECTATIONS` are not looked at.
        overwrite: whether the logits may be overwritten, which saves memory.
    """
    # x = logit - largest logit <= 0, e = exp(x), log p = x - log sum e
    highest_base, highest_rl = base.amax(-1, keepdim=True), rl.amax(-1, keepdim=True)  # (R, 1)
    x_base = torch.sub(base, highest_base, out=base if overwrite else None)
    x_rl = torch.sub(rl, highest_rl, out=rl if overwrite else None)
    e_base, e_rl = x_base.exp(), x_rl.exp()
    z_base, z_rl = e_base.sum(-1), e_rl.sum(-1)  # (R,)
    log_z_base, log_z_rl = z_base.log(), z_rl.log()
    sums = RowSums(highest_base.squeeze(-1), highest_rl.squeeze(-1), log_z_base, log_z_rl)
    if not wanted & EXPECTATIONS:
        return sums

    negative_entropy_base = _dot(e_base, x_base) / z_base - log_z_base  # E[log p] under itself
    negative_entropy_rl = _dot(e_rl, x_rl) / z_rl - log_z_rl
    means = {"entropy_base": -negative_entropy_base, "entropy_rl": -negative_entropy_rl}
    if wanted & {"forward_kl", "reverse_kl"}:
        apart = x_base - x_rl  # small where the distributions are close, so their KL loses nothing to rounding
        log_z_apart = log_z_base - log_z_rl
        means["forward_kl"] = _dot(e_base, apart) / z_base - log_z_apart
        means["reverse_kl"] = log_z_apart - _dot(e_rl, apart) / z_rl
    if "js" in wanted:
        # JS = (E_p log p + E_q log q) / 2 - sum m log m, where m = (p + q) / 2 = n / (2 z_q), n = z_q / z_p e_p + e_q
        n = torch.addcmul(e_rl, e_base, (z_rl / z_base).unsqueeze(-1), out=e_rl)
        log_n = torch.log(n.add_(torch.finfo(n.dtype).tiny), out=e_base)
        negative_entropy_middle = _dot(n, log_n) / (2 * z_rl) - math.log(2) - log_z_rl
        js = 0.5 * (negative_entropy_base + negative_entropy_rl) - negative_entropy_middle
        means["js"] = js.clamp(max=math.log(2))
    sums.means = {name: value.clamp(min=0.0) for name, value in means.items() if name in wanted}
    return sums


def _dot(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Dot products of the rows of `(R, V)` matrices, `(R,)`; on CPU several times faster than a batched product."""
    return torch.linalg.vecdot(first, second)
