"""Divergences between next-token distributions, from logits: the readable reference, which all faster code is tested
against.

Arithmetic is in the logits' dtype, at least float32; give float64 for an oracle. All logs are natural, results in
nats. A logit of -inf is a token of probability zero. Definitions: arXiv 2603.22446, section 2.
"""

import math

import torch

from tokenshift.analysis.checks import is_number


def check_sampling(temperature: float, top_p: float) -> None:
    """Raise ValueError for a temperature or top_p out of range."""
    if not is_number(temperature) or not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature={temperature!r} must be a finite number > 0.")
    if not is_number(top_p) or not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p!r} must lie in (0, 1].")


def log_probabilities(logits: torch.Tensor, *, temperature: float = 1.0, top_p: float = 1.0) -> torch.Tensor:
    """Log-probabilities `(..., V)` of the distribution that sampling draws from.

    Args:
        logits: `(..., V)`, any float dtype.
        temperature: divides the logits, > 0; at 1 they are left as they are.
        top_p: in (0, 1]; tokens outside the smallest set of most probable tokens whose mass reaches it get -inf, and
            the others are renormalised. The token that crosses it is kept; of equally probable tokens the lower id
            comes first.

    Raises:
        ValueError: for a temperature or top_p out of range.
    """
    check_sampling(temperature, top_p)
    scaled = logits if logits.dtype == torch.float64 else logits.float()
    if temperature != 1:
        # the largest is taken off first: an offset that all logits share would cost the quotients their digits
        scaled = (scaled - scaled.amax(dim=-1, keepdim=True)) / temperature
    logp = torch.log_softmax(scaled, dim=-1)
    if top_p == 1:
        return logp
    return torch.log_softmax(logp.masked_fill(~top_p_support(logp, top_p), -math.inf), dim=-1)


def top_p_support(logp: torch.Tensor, top_p: float) -> torch.Tensor:
    """A mask of the tokens that the top-p set holds, bool `(..., V)`, from log-probabilities `(..., V)`."""
    _, order, _, kept = top_p_in_order(logp, top_p)
    return torch.zeros_like(kept).scatter(-1, order, kept)


def top_p_in_order(logp: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sort log-probabilities `(..., V)`, the largest first and of equal ones the lower id, and find the top-p set.

    Returns:
        The sorted values, their indices, the mass before each, and which of them the set holds, `(..., V)` each.
    """
    ordered, order = torch.sort(logp, dim=-1, descending=True, stable=True)
    mass_before = ordered.exp().cumsum(dim=-1) - ordered.exp()
    kept = (mass_before < top_p) & ordered.isfinite()
    kept[..., 0] = True
    return ordered, order, mass_before, kept


def _expectation(probability: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Sum of probability * value over the last axis, where 0 * inf is 0."""
    return torch.where(probability == 0, 0.0, probability * value).sum(dim=-1)


def _pair(
    logits_p: torch.Tensor, logits_q: torch.Tensor, temperature: float, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    if logits_p.shape != logits_q.shape:
        raise ValueError(f"logits of shapes {tuple(logits_p.shape)} and {tuple(logits_q.shape)} cannot be compared.")
    return (
        log_probabilities(logits_p, temperature=temperature, top_p=top_p),
        log_probabilities(logits_q, temperature=temperature, top_p=top_p),
    )


def kl_divergence(
    logits_p: torch.Tensor, logits_q: torch.Tensor, *, temperature: float = 1.0, top_p: float = 1.0
) -> torch.Tensor:
    """KL(p‖q) in nats, `(...)`, >= 0; inf where p has a token that q lacks, as truncation makes common.

    Args:
        logits_p, logits_q: `(..., V)`.
        temperature, top_p: as for `log_probabilities`, applied to both.

    Raises:
        ValueError: for different shapes, or a temperature or top_p out of range.
    """
    logp, logq = _pair(logits_p, logits_q, temperature, top_p)
    return _expectation(logp.exp(), logp - logq).clamp(min=0.0)


def js_divergence(
    logits_p: torch.Tensor, logits_q: torch.Tensor, *, temperature: float = 1.0, top_p: float = 1.0
) -> torch.Tensor:
    """Jensen-Shannon divergence 1/2 KL(p‖m) + 1/2 KL(q‖m), m = (p + q)/2, in nats, `(...)`, in [0, ln 2].

    Args:
        logits_p, logits_q: `(..., V)`.
        temperature, top_p: as for `log_probabilities`, applied to both; the publication uses top_p = 0.7.

    Raises:
        ValueError: for different shapes, or a temperature or top_p out of range.
    """
    logp, logq = _pair(logits_p, logits_q, temperature, top_p)
    logm = torch.logaddexp(logp, logq) - math.log(2)
    js = (_expectation(logp.exp(), logp - logm) + _expectation(logq.exp(), logq - logm)) / 2
    return js.clamp(min=0.0, max=math.log(2))


def entropy(logits: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    """Entropy in nats of the untruncated distribution, `(...)`, in [0, ln V]."""
    logp = log_probabilities(logits, temperature=temperature)
    return -_expectation(logp.exp(), logp)
