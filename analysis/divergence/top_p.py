"""Divergences between top-p truncated distributions, from the tokens that the truncation keeps.

Most next-token distributions keep a few tokens, which are looked at alone. Of wide ones the edge of the set is found
from a histogram of the mass by logit, and only the bin that holds the edge is sorted. Where the rounding of float32
logits could choose another set than exact arithmetic, the row is called unsure and is left to the caller.
"""

import math
from dataclasses import dataclass

import torch

from tokenshift.analysis.divergence.top_k import top_k

DEPTH = 16
"""Most probable tokens looked at first."""

DEEPER = 128
"""Most probable tokens looked at next, for rows whose sets are larger; a set that is larger still is wide."""

MARGIN = 1e-5
"""A row is unsure whose mass comes this close to top_p at a token."""

GAP = 2e-5
"""A row is also unsure whose last kept and first dropped logit are this close, in nats: several times the rounding of
float32 logits."""

BINS = 4096
"""Bins of the histogram, over the logits from the largest to `REACH` nats below it."""

REACH = 24.0
"""Tokens further below the largest share less than V * exp(-24) of the mass; they fall into the last bin together."""


@dataclass
class NextTokens:
    """One model's next-token distributions of R tokens.

    Attributes:
        logits: `(N, V)` float32.
        maxima: their block maxima.
        rows: the row of each of the R tokens among the N rows, `(R,)`.
        top: their first `DEPTH` or more values and ids, `top_k`, `(R, K)` each.
        log_normalizer: `(R,)` float64, log of the sum of exp(logit).
    """

    logits: torch.Tensor
    maxima: torch.Tensor
    rows: torch.Tensor
    top: tuple[torch.Tensor, torch.Tensor]
    log_normalizer: torch.Tensor

    def deeper(self, index: torch.Tensor, depth: int) -> "NextTokens":
        """Some of these tokens, with a top of `depth`."""
        rows = self.rows[index]
        top = top_k(self.logits, depth, self.maxima, rows)
        return NextTokens(self.logits, self.maxima, rows, top, self.log_normalizer[index])


def truncated_divergences(
    base: NextTokens, rl: NextTokens, top_p: float, strip: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """JS, KL(base‖RL), KL(RL‖base), `(3, N)`, nats, of distributions truncated to `top_p` < 1 and renormalised.

    Args:
        base, rl: all N tokens of either model.
        top_p: in (0, 1).
        strip: rows of V values to hold at a time.

    Returns:
        The divergences, and which rows are sure, bool `(N,)`.
    """
    divergences, sure = _from_tops(base, rl, top_p)
    results = divergences.float()
    left = (~sure).nonzero().squeeze(-1)
    if len(left):
        divergences, sure[left] = _from_tops(base.deeper(left, DEEPER), rl.deeper(left, DEEPER), top_p)
        results[:, left] = divergences.float()
        left = left[~sure[left]]
    strip = max(1, strip // 2)  # histograms take several matrices more
    for start in range(0, len(left), strip):
        part = left[start : start + strip]
        results[:, part], sure[part] = _wide(base, rl, part, top_p)
    return results, sure


# Sets of few tokens --------------------------------------------------------------------------------------------------


def _from_tops(base: NextTokens, rl: NextTokens, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Divergences `(3, R)`, and in which rows both sets lie within the tops, without doubt."""
    sets = _TopPSet(base, top_p), _TopPSet(rl, top_p)
    return torch.stack(_between(*sets)), sets[0].sure & sets[1].sure


class _TopPSet:
    """Each row's top-p set: its ids, renormalised log-probabilities, and edge.

    Attributes:
        ids: `(R, K)` most probable tokens, in order.
        kept: which of them the set holds, bool `(R, K)`.
        logp: renormalised log-probabilities `(R, K)`, -inf where not kept.
        sure: rows whose set lies within the K tokens, with no doubt from rounding, bool `(R,)`.
    """

    def __init__(self, tokens: NextTokens, top_p: float) -> None:
        values, self.ids = tokens.top
        self._tokens = tokens
        probability = (values.double() - tokens.log_normalizer.unsqueeze(-1)).clamp(max=0).exp()
        mass = probability.cumsum(dim=-1)
        before = mass - probability
        self.kept = before < top_p
        self.kept[:, 0] = True
        close = ((before - top_p).abs() < MARGIN)[:, 1:].any(dim=-1)
        self.logp = torch.log_softmax(values.double().masked_fill(~self.kept, -math.inf), dim=-1)
        edge = self.kept.sum(dim=-1, keepdim=True) - 1
        self._edge_value, self._edge_id = values.gather(-1, edge), self.ids.gather(-1, edge)
        last = values.shape[-1] - 1
        dropped = values.gather(-1, (edge + 1).clamp(max=last))
        apart = (edge < last) & (self._edge_value - dropped > GAP)
        if last + 1 == tokens.logits.shape[-1]:  # the whole vocabulary, which a set may be
            self.sure = (apart | (edge == last)).squeeze(-1) & ~close
        else:
            self.sure = (mass[:, -1] > top_p + MARGIN) & apart.squeeze(-1) & ~close
        self._shift = self.logp[:, :1] - values[:, :1].double()  # logit to renormalised log-probability

    def logp_of(self, ids: torch.Tensor) -> torch.Tensor:
        """Renormalised log-probabilities of any tokens `(R, K)`, -inf for those outside the set."""
        values = self._tokens.logits[self._tokens.rows.unsqueeze(-1), ids]
        inside = (values > self._edge_value) | ((values == self._edge_value) & (ids <= self._edge_id))
        return (values.double() + self._shift).masked_fill(~inside, -math.inf)


def _between(base: _TopPSet, rl: _TopPSet) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    forward, to_middle_base = _one_side(base.logp, rl.logp_of(base.ids))
    reverse, to_middle_rl = _one_side(rl.logp, base.logp_of(rl.ids))
    js = ((to_middle_base + to_middle_rl) / 2).clamp(0.0, math.log(2))
    return js, forward.clamp(min=0.0), reverse.clamp(min=0.0)


def _one_side(logp: torch.Tensor, logq: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """KL(p‖q) and KL(p‖m) over p's support, from log-probabilities `(R, K)`."""
    p, logm = logp.exp(), torch.logaddexp(logp, logq) - math.log(2)
    return (
        torch.where(p == 0, 0.0, p * (logp - logq)).sum(dim=-1),
        torch.where(p == 0, 0.0, p * (logp - logm)).sum(dim=-1),
    )


# Wide sets -----------------------------------------------------------------------------------------------------------


def _wide(base: NextTokens, rl: NextTokens, left: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Divergences `(3, n)` of the rows `left` `(n,)` of sets of any size, and which of them are without doubt."""
    x_base, e_base, sure_base = _truncated(base.logits[left], base.top[0][left, :1], top_p)
    x_rl, e_rl, sure_rl = _truncated(rl.logits[left], rl.top[0][left, :1], top_p)
    z_base, z_rl = e_base.sum(-1), e_rl.sum(-1)  # of the kept tokens
    negative_entropy_base = torch.linalg.vecdot(e_base, x_base) / z_base - z_base.log()
    negative_entropy_rl = torch.linalg.vecdot(e_rl, x_rl) / z_rl - z_rl.log()
    apart, log_z_apart = x_base - x_rl, z_base.log() - z_rl.log()
    forward = torch.linalg.vecdot(e_base, apart) / z_base - log_z_apart
    reverse = log_z_apart - torch.linalg.vecdot(e_rl, apart) / z_rl
    sure = sure_base & sure_rl & ~(forward + reverse).isnan()  # NaN where logits are -inf
    both = (e_base > 0) & (e_rl > 0)
    shared = both.sum(-1)
    forward = forward.masked_fill((e_base > 0).sum(-1) > shared, math.inf)
    reverse = reverse.masked_fill((e_rl > 0).sum(-1) > shared, math.inf)
    n = torch.addcmul(e_rl, e_base, (z_rl / z_base).unsqueeze(-1), out=e_rl)
    log_n = torch.log(n + torch.finfo(n.dtype).tiny)
    negative_entropy_middle = torch.linalg.vecdot(n, log_n) / (2 * z_rl) - math.log(2) - z_rl.log()
    js = (0.5 * (negative_entropy_base + negative_entropy_rl) - negative_entropy_middle).clamp(0.0, math.log(2))
    return torch.stack([js, forward.clamp(min=0.0), reverse.clamp(min=0.0)]), sure


def _truncated(
    logits: torch.Tensor, highest: torch.Tensor, top_p: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x = logit - highest `(n, V)`, exp(x) with zeros outside the top-p set `(n, V)`, and which rows are sure `(n,)`.

    Args:
        logits: `(n, V)`, float32.
        highest: `(n, 1)`.
        top_p: < 1.
    """
    x = logits - highest
    e = x.exp()
    bins = (x * (-BINS / REACH)).clamp_(max=BINS - 1).long()  # (n, V), 0 for the largest
    mass = torch.zeros(len(x), BINS, dtype=torch.float64, device=x.device).scatter_add_(-1, bins, e.double())
    reached = mass.cumsum(-1)
    target = top_p * reached[:, -1:]
    last_bin = (reached < target).sum(-1, keepdim=True)  # the bin in which the set ends
    before_bin = (reached - mass).gather(-1, last_bin)
    inside = bins == last_bin
    width = int(inside.sum(-1).max())
    # the bin's tokens alone, in order
    value, _ = x.masked_fill(~inside, -math.inf).topk(min(width + 1, x.shape[-1]), dim=-1)
    probability = value.double().exp()
    before = before_bin + probability.cumsum(-1) - probability
    kept = (before < target) & value.isfinite()
    edge = value.gather(-1, kept.sum(-1, keepdim=True).clamp(min=1) - 1)
    total = reached[:, -1:]
    close = (((before - target).abs() < MARGIN * total) & value.isfinite()).any(-1)
    in_last = (last_bin.squeeze(-1) == BINS - 1) | (kept.sum(-1) == 0)
    dropped = x < edge
    apart = (edge - x.masked_fill(~dropped, -math.inf).amax(-1, keepdim=True) > GAP).squeeze(-1)
    tied = ((value == edge) & ~kept).any(-1)  # equal values on both sides of the edge
    e.masked_fill_(dropped, 0.0)
    return x, e, apart & ~(close | tied | in_last)
