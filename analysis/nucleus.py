"""Divergences between top-p truncated distributions, from the few tokens that the truncation keeps."""

import math

import torch

from tokenshift.analysis.divergence import js_divergence, kl_divergence
from tokenshift.analysis.topk import top_k

DEPTHS = (16, 128)
"""Tokens looked at, in stages; rows whose sets are larger go to the next, at last to the reference."""

MARGIN = 4e-6
"""Rows whose mass comes this close to top_p at a set's edge go to the float64 reference: rounding must not choose."""


def truncated_divergences(
    base: torch.Tensor, rl: torch.Tensor, maxima_base: torch.Tensor, maxima_rl: torch.Tensor, top_p: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """JS, KL(base‖RL), KL(RL‖base) of the distributions truncated to `top_p` and renormalised, `(R,)` each, nats.

    Args:
        base, rl: logits `(R, V)` float32.
        maxima_base, maxima_rl: their block maxima.
        top_p: in (0, 1].
    """
    results = base.new_full((3, len(base)), math.nan)
    log_z = torch.stack([base.logsumexp(-1), rl.logsumexp(-1)])  # (2, R)
    left = torch.arange(len(base), device=base.device)
    for depth in DEPTHS:
        if top_p == 1 or depth >= base.shape[-1] or not len(left):
            break
        sets = [
            _TopPSet(logits[left], top_k(logits[left], depth, maxima[left]), lz[left], top_p)
            for logits, maxima, lz in ((base, maxima_base, log_z[0]), (rl, maxima_rl, log_z[1]))
        ]
        sure = sets[0].sure & sets[1].sure
        if sure.any():
            results[:, left[sure]] = torch.stack(_between(*sets))[:, sure]
        left = left[~sure]
    if len(left):
        p, q = base[left].double(), rl[left].double()
        reference = (
            js_divergence(p, q, top_p=top_p),
            kl_divergence(p, q, top_p=top_p),
            kl_divergence(q, p, top_p=top_p),
        )
        results[:, left] = torch.stack(reference).float()
    return results[0], results[1], results[2]


class _TopPSet:
    """Each row's top-p set: its ids, renormalised log-probabilities, and edge.

    Attributes:
        ids: `(R, K)` most probable tokens, in order.
        kept: which of them the set holds, bool `(R, K)`.
        logp: renormalised log-probabilities `(R, K)`, -inf where not kept.
        sure: rows whose set lies within the K tokens, with no doubt from rounding, bool `(R,)`.
    """

    def __init__(
        self, logits: torch.Tensor, top: tuple[torch.Tensor, torch.Tensor], log_z: torch.Tensor, top_p: float
    ) -> None:
        values, self.ids = top
        self.logits = logits
        logp = (values.double() - log_z.unsqueeze(-1).double()).clamp(max=0)
        mass = logp.exp().cumsum(dim=-1)
        before = mass - logp.exp()
        self.kept = before < top_p
        self.kept[:, 0] = True
        close = ((before - top_p).abs() < MARGIN)[:, 1:].any(dim=-1)
        self.sure = (mass[:, -1] > top_p + MARGIN) & ~close
        self.logp = torch.log_softmax(values.double().masked_fill(~self.kept, -math.inf), dim=-1)
        edge = self.kept.sum(dim=-1, keepdim=True) - 1
        self._edge_value, self._edge_id = values.gather(-1, edge), self.ids.gather(-1, edge)
        self._shift = self.logp[:, :1] - values[:, :1].double()  # logit to renormalised log-probability

    def logp_of(self, ids: torch.Tensor) -> torch.Tensor:
        """Renormalised log-probabilities of any tokens `(R, K)`, -inf for those outside the set."""
        values = self.logits.gather(-1, ids)
        inside = (values > self._edge_value) | ((values == self._edge_value) & (ids <= self._edge_id))
        return (values.double() + self._shift).masked_fill(~inside, -math.inf)


def _between(base: _TopPSet, rl: _TopPSet) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    forward, to_middle_base = _one_side(base.logp, rl.logp_of(base.ids))
    reverse, to_middle_rl = _one_side(rl.logp, base.logp_of(rl.ids))
    js = ((to_middle_base + to_middle_rl) / 2).clamp(0.0, math.log(2))
    return js.float(), forward.clamp(min=0.0).float(), reverse.clamp(min=0.0).float()


def _one_side(logp: torch.Tensor, logq: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """KL(p‖q) and KL(p‖m) over p's support, from log-probabilities `(R, K)`."""
    p, logm = logp.exp(), torch.logaddexp(logp, logq) - math.log(2)
    return (
        torch.where(p == 0, 0.0, p * (logp - logq)).sum(dim=-1),
        torch.where(p == 0, 0.0, p * (logp - logm)).sum(dim=-1),
    )
