"""Draws of next tokens by common random numbers: the same for every batch and for every policy."""

from collections.abc import Sequence

import torch

from tokenshift.analysis.divergence.from_logits import top_p_in_order
from tokenshift.analysis.divergence.top_k import top_k
from tokenshift.analysis.divergence.top_p import above, likely_bound
from tokenshift.analysis.sampling.shared_noise import Row, gumbel_noise

NARROW = 64
"""Most probable tokens looked at first; a top-p set is seldom larger, and sorting a vocabulary is slow."""

MARGIN = 1e-5
"""Mass beyond top_p at which a set has surely ended, whatever the rounding of its sum."""


def coupled_draw(
    logp: torch.Tensor,
    rows: Sequence[Row],
    positions: Sequence[int],
    *,
    top_p: float = 1.0,
    seed: int = 0,
) -> torch.Tensor:
    """The next token of each of B responses, `(B,)` int64, drawn from the truncated distributions.

    Args:
        logp: log-probabilities `(B, V)` at the sampling temperature; `log_probabilities`.
        rows: (problem_id, sample_id) of the B responses.
        positions: the token's position in each completion, from 0.
        top_p: in (0, 1]; distributions are truncated to it.
        seed: of the draws; with the same seed, a position has the same noise for every policy.
    """
    if top_p == 1:
        all_ids = torch.arange(logp.shape[-1], device=logp.device).unsqueeze(0)  # (1, V)
        return (logp + gumbel_noise(seed, rows, positions, all_ids)).argmax(dim=-1)
    values, ids = top_k(logp, NARROW)  # (B, k)
    mass = values.exp()
    mass_upto = mass.cumsum(dim=-1)
    kept = mass_upto - mass < top_p
    kept[:, 0] = True
    noisy = (values + gumbel_noise(seed, rows, positions, ids)).masked_fill(~kept, -torch.inf)
    drawn = ids.gather(-1, noisy.argmax(dim=-1, keepdim=True)).squeeze(-1)
    if ids.shape[-1] == logp.shape[-1]:
        return drawn
    wide = (mass_upto[:, -1] < top_p).nonzero().squeeze(-1)
    if len(wide):
        wide_rows = wide.tolist()
        streams = [rows[row] for row in wide_rows], [positions[row] for row in wide_rows]
        drawn[wide] = _wide_draw(logp[wide], *streams, top_p, seed)
    return drawn


def _wide_draw(
    logp: torch.Tensor, rows: Sequence[Row], positions: Sequence[int], top_p: float, seed: int
) -> torch.Tensor:
    """The tokens `(w,)` int64 of rows `(w, V)` whose sets are large: only the tokens that can lie in a set are sorted,
    and only those in it are given noise."""
    ids, values, kept = _wide_sets(logp, top_p)
    noisy = (values + gumbel_noise(seed, rows, positions, ids)).masked_fill(~kept, -torch.inf)
    best = noisy.amax(dim=-1, keepdim=True)
    return ids.masked_fill(noisy < best, logp.shape[-1]).amin(dim=-1)  # of equal ones the first, as argmax takes it


def _wide_sets(logp: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids and log-probabilities `(w, S)` of the tokens in the sets of rows `(w, V)`, and which of them are there.

    What the sets are found by is freed on return, before noise takes memory of its own.
    """
    limit = likely_bound(logp, torch.zeros(len(logp), dtype=torch.float64, device=logp.device), top_p)
    ids, values = above(logp, limit)  # (w, W), few of V, ascending ids
    ordered, order, mass_before, kept = top_p_in_order(values, top_p)
    if bool((mass_before.masked_fill(~ordered.isfinite(), 0.0).amax(dim=-1) < top_p + MARGIN).any()):
        ids = torch.arange(logp.shape[-1], device=logp.device).expand_as(logp)  # a set may go on below the limit
        ordered, order, _, kept = top_p_in_order(logp, top_p)
    size = int(kept.sum(dim=-1).max())
    return ids.gather(-1, order[:, :size]), ordered[:, :size], kept[:, :size]
