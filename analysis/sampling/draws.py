"""Draws of next tokens by common random numbers: the same for every batch and for every policy."""

from collections.abc import Sequence

import torch

from tokenshift.analysis.divergence.from_logits import top_p_support
from tokenshift.analysis.divergence.top_k import top_k
from tokenshift.analysis.sampling.shared_noise import Row, gumbel_noise

NARROW = 64
"""Most probable tokens looked at first; a top-p set is seldom larger, and sorting a vocabulary is slow."""


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
    all_ids = torch.arange(logp.shape[-1], device=logp.device).unsqueeze(0)  # (1, V)
    if top_p == 1:
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
        noise = gumbel_noise(seed, [rows[row] for row in wide_rows], [positions[row] for row in wide_rows], all_ids)
        support = top_p_support(logp[wide], top_p)
        drawn[wide] = (logp[wide] + noise).masked_fill(~support, -torch.inf).argmax(dim=-1)
    return drawn
