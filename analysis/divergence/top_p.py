"""Divergences between top-p truncated distributions, from the tokens that the truncation keeps.

Most next-token distributions keep a few tokens, which are looked at alone. Of wide ones the tokens that can lie in the
set are picked out by a bound on the probability of its last token, and only these, a small part of the vocabulary, are
sorted. Where the rounding of the logits could choose another set than exact arithmetic, the row is called unsure and
is left to the caller.
"""

import math
from dataclasses import dataclass

import numpy
import torch

DEPTH = 16
"""Most probable tokens looked at first; a set that is larger is wide."""

MARGIN = {torch.float32: 1e-5, torch.float64: 1e-11}
"""A row is unsure whose mass comes this close to top_p at a token, by the dtype of its logits."""

GAP = {torch.float32: 2e-5, torch.float64: 0.0}
"""A row is also unsure whose last kept and first dropped logit are this close, in nats: several times the rounding of
float32 logits. Of float64 logits only equal ones are unsure."""

WIDE_ROWS = 4
"""Rows of wide sets looked at together, at least."""

SAMPLED, TAIL = 16, 0.7
"""One token in `SAMPLED` is looked at first; the share `TAIL` of the mass outside a set is left out unseen."""

BELOW = 1e-3
"""Distance in nats below the bound on the last token's logit up to which tokens are looked at: more than rounding."""


@dataclass
class NextTokens:
    """One model's next-token distributions of R tokens.

    Attributes:
        logits: `(R, V)` float32 or float64.
        top: their first `DEPTH` or more values and ids, `top_k`, `(R, K)` each.
        log_normalizer: `(R,)` float64, log of the sum of exp(logit).
    """

    logits: torch.Tensor
    top: tuple[torch.Tensor, torch.Tensor]
    log_normalizer: torch.Tensor


def truncated_divergences(
    base: NextTokens, rl: NextTokens, top_p: float, strip: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """JS, KL(base‖RL), KL(RL‖base), `(3, R)`, nats, of distributions truncated to `top_p` < 1 and renormalised.

    Args:
        base, rl: all R tokens of either model.
        top_p: in (0, 1).
        strip: rows of V values to hold at a time.

    Returns:
        The divergences, and which rows are sure, bool `(R,)`.
    """
    sets = _set_of_tops(base, top_p), _set_of_tops(rl, top_p)
    results, sure = torch.stack(_between(*sets)).float(), sets[0].sure & sets[1].sure
    left = (~sure).nonzero().squeeze(-1)
    # ids and float64 masses of a row may take as much as two rows of logits
    for rows in left.split(max(WIDE_ROWS, strip // 2)) if len(left) else ():
        normalizers = base.log_normalizer[rows], rl.log_normalizer[rows]
        divergences, sure[rows] = wide_divergences(base.logits[rows], rl.logits[rows], *normalizers, top_p)
        results[:, rows] = divergences.float()
    return results, sure


def wide_divergences(
    base: torch.Tensor,
    rl: torch.Tensor,
    log_normalizer_base: torch.Tensor,
    log_normalizer_rl: torch.Tensor,
    top_p: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Divergences `(3, n)` float64 as `truncated_divergences` gives, for sets of any size, and which rows are sure.

    Args:
        base, rl: logits `(n, V)`, float32 or float64.
        log_normalizer_base, log_normalizer_rl: `(n,)` float64.
        top_p: in (0, 1).
    """
    sets = set_of_any_size(base, log_normalizer_base, top_p), set_of_any_size(rl, log_normalizer_rl, top_p)
    return torch.stack(_between(*sets)), sets[0].sure & sets[1].sure


@dataclass
class TopPSet:
    """The top-p sets of R rows.

    Attributes:
        logits: `(R, V)`.
        ids: `(R, K)` tokens, all of the set among them.
        logp: their renormalised log-probabilities `(R, K)` float64, -inf where not in the set.
        sure: rows in which all of the set is known, with no doubt from rounding, bool `(R,)`.
        edge_value, edge_id: logit and id of the set's last token, `(R, 1)`; an id of V where no other has the value.
        shift: what turns logits of the set into `logp`, `(R, 1)` float64.
    """

    logits: torch.Tensor
    ids: torch.Tensor
    logp: torch.Tensor
    sure: torch.Tensor
    edge_value: torch.Tensor
    edge_id: torch.Tensor
    shift: torch.Tensor

    def logp_of(self, ids: torch.Tensor) -> torch.Tensor:
        """Renormalised log-probabilities of any tokens `(R, K)`, -inf for those outside the set."""
        values = self.logits.gather(-1, ids)
        inside = (values > self.edge_value) | ((values == self.edge_value) & (ids <= self.edge_id))
        return (values.double() + self.shift).masked_fill(~inside, -math.inf)


def _set_of_tops(tokens: NextTokens, top_p: float) -> TopPSet:
    """The sets of rows whose sets lie within the `DEPTH` most probable tokens."""
    values, ids = tokens.top
    margin, gap = MARGIN[values.dtype], GAP[values.dtype]
    probability = (values.double() - tokens.log_normalizer.unsqueeze(-1)).clamp(max=0).exp()
    mass = probability.cumsum(dim=-1)
    before = mass - probability
    kept = before < top_p
    kept[:, 0] = True
    close = ((before - top_p).abs() < margin)[:, 1:].any(dim=-1)
    logp = torch.log_softmax(values.double().masked_fill(~kept, -math.inf), dim=-1)
    edge = kept.sum(dim=-1, keepdim=True) - 1
    edge_value, edge_id = values.gather(-1, edge), ids.gather(-1, edge)
    last = values.shape[-1] - 1
    dropped = values.gather(-1, (edge + 1).clamp(max=last))
    apart = (edge < last) & (edge_value - dropped > gap)
    if last + 1 == tokens.logits.shape[-1]:  # the whole vocabulary, which a set may be
        sure = (apart | (edge == last)).squeeze(-1) & ~close
    else:
        sure = (mass[:, -1] > top_p + margin) & apart.squeeze(-1) & ~close
    shift = logp[:, :1] - values[:, :1].double()
    return TopPSet(tokens.logits, ids, logp, sure, edge_value, edge_id, shift)


def _between(base: TopPSet, rl: TopPSet) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
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


def set_of_any_size(logits: torch.Tensor, log_normalizer: torch.Tensor, top_p: float) -> TopPSet:
    """The top-p sets of rows of logits `(n, V)`, float32 or float64.

    From the last token of a set on, that token included, lies a mass above 1 - top_p, and none of these at most V
    tokens is more probable than the last one: its probability is at least (1 - top_p) / V. Only tokens above that
    bound can be in a set. A higher bound is tried before, which a sample of tokens suggests and the mass above it
    confirms.

    Args:
        logits: without NaN; -inf is a token of probability zero.
        log_normalizer: `(n,)` float64, log of the sum of exp(logit); NaN leaves a row unsure.
        top_p: in (0, 1).
    """
    margin, gap = MARGIN[logits.dtype], GAP[logits.dtype]
    bound = (log_normalizer + math.log((1 - top_p) / logits.shape[-1]) - BELOW).unsqueeze(-1)  # (n, 1)
    limit = torch.maximum(bound, likely_bound(logits, log_normalizer, top_p))
    ids, values = above(logits, limit)  # (n, W), few of V
    short = ~((values.double() - log_normalizer.unsqueeze(-1)).exp().sum(dim=-1, keepdim=True) > top_p + margin)
    if short.any():
        limit = torch.where(short, bound, limit)
        ids, values = above(logits, limit)
    ordered = _descending(values)
    probability = (ordered.double() - log_normalizer.unsqueeze(-1)).exp()
    mass = probability.cumsum(dim=-1)
    before = mass - probability
    real = ordered > -math.inf
    kept = (before < top_p) & real
    size = kept.sum(dim=-1, keepdim=True)
    edge = ordered.gather(-1, size.clamp(min=1) - 1)
    following = ordered.gather(-1, size.clamp(max=ordered.shape[-1] - 1))
    following = following.masked_fill(size == ordered.shape[-1], -math.inf)
    apart = edge.double() - torch.maximum(following.double(), limit) > gap
    close = (((before - top_p).abs() < margin) & real)[:, 1:].any(dim=-1)
    sure = apart.squeeze(-1) & ~close & (size.squeeze(-1) > 0)

    index, inside = _where(values, edge.double(), inclusive=True)
    kept_ids = ids.gather(-1, index)
    kept_values = values.gather(-1, index).double().masked_fill_(~inside, -math.inf)
    shift = -kept_values.logsumexp(dim=-1, keepdim=True)
    return TopPSet(logits, kept_ids, kept_values + shift, sure, edge, torch.full_like(size, logits.shape[-1]), shift)


def likely_bound(logits: torch.Tensor, log_normalizer: torch.Tensor, top_p: float) -> torch.Tensor:
    """Logits `(n, 1)` float64 above which the whole set probably lies, from every `SAMPLED`th token; -inf at worst."""
    sample = _descending(logits[:, ::SAMPLED].contiguous()).double()  # (n, S)
    tail = (sample - log_normalizer.unsqueeze(-1)).exp().flip(-1).cumsum(dim=-1) * SAMPLED  # from the lowest on
    below = (tail < TAIL * (1 - top_p)).sum(dim=-1, keepdim=True)
    lowest = torch.full_like(sample[:, :1], -math.inf)
    return torch.cat([lowest, sample.flip(-1)], dim=-1).gather(-1, below)


def above(logits: torch.Tensor, limit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and values `(n, W)` of the logits above a limit `(n, 1)`; where a row has fewer, ids of 0 and -inf."""
    ids, there = _where(logits, limit)
    return ids, logits.gather(-1, ids).masked_fill_(~there, -math.inf)


def _where(values: torch.Tensor, bound: torch.Tensor, *, inclusive: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns of the values `(n, V)` above a row's bound `(n, 1)`, ascending: `(n, W)`, and which of these are there.

    A row with fewer than the longest row's W, at least 1, ends in columns that are not there.
    """
    bound = bound.to(values.dtype)
    if values.device.type == "cpu":  # where numpy takes a quarter of torch's time
        compare = numpy.greater_equal if inclusive else numpy.greater
        flat_array = numpy.flatnonzero(compare(values.detach().numpy(), bound.detach().numpy()))
        ends = numpy.searchsorted(flat_array, values.shape[-1] * numpy.arange(len(values) + 1))
        flat, counts = torch.from_numpy(flat_array), torch.from_numpy(numpy.diff(ends))
    else:
        mask = values >= bound if inclusive else values > bound
        flat, counts = mask.flatten().nonzero().squeeze(-1), mask.sum(-1)
    width = max(1, int(counts.max()))
    place = torch.arange(width, device=values.device)
    there = place < counts.unsqueeze(-1)
    if not len(flat):
        return torch.zeros_like(there, dtype=torch.int64), there
    first = torch.arange(len(values), device=values.device).unsqueeze(-1) * values.shape[-1]
    columns = flat[(counts.cumsum(0) - counts).unsqueeze(-1).add(place).clamp(max=len(flat) - 1)] - first
    return columns.masked_fill_(~there, 0), there


def _descending(values: torch.Tensor) -> torch.Tensor:
    """The values of each row, the largest first; numpy sorts on CPU about ten times faster than torch."""
    if values.device.type == "cpu":
        return torch.from_numpy(numpy.sort(values.detach().numpy(), axis=-1)).flip(-1)
    return values.sort(dim=-1, descending=True).values
