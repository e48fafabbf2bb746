"""Per-token divergences at the sampled token, and the weights made from them: pure functions on tensors.

Shapes are free (elementwise); in the trainer they are `(N,)`, the valid tokens of a batch. All logs are natural.
Source of the formulas: arXiv 2603.22446, section 5 (sigmoid weighting), and arXiv 2603.22117 (low-probability boost).
"""

import torch


def k1(logps: torch.Tensor, old_logps: torch.Tensor) -> torch.Tensor:
    """`-d`, with `d = log pi_theta - log pi_old` at the sampled token: unbiased for KL(pi_old‖pi_theta), signed."""
    return old_logps.float() - logps.float()


def k2(logps: torch.Tensor, old_logps: torch.Tensor) -> torch.Tensor:
    """`d² / 2`: biased, low variance, non-negative (nats)."""
    d = logps.float() - old_logps.float()
    return d * d / 2


def k3(logps: torch.Tensor, old_logps: torch.Tensor) -> torch.Tensor:
    """`exp(d) - 1 - d`: unbiased for KL(pi_old‖pi_theta) and non-negative (nats).

    Written with `expm1`: near `d = 0`, where most tokens are, `exp(d) - 1` would lose every digit of a value of order
    `d²`. What rounding is left could still be negative, so it is clamped at the bound.
    """
    d = logps.float() - old_logps.float()
    return (torch.expm1(d) - d).clamp(min=0.0)


SAMPLED_DIVERGENCES = {"k3": k3, "k1": k1, "k2": k2}
"""Divergences that need only the sampled token's log-probabilities, `(logps, old_logps) -> divergence`."""


def sigmoid_weights(divergence: torch.Tensor, alpha: float, scale: float) -> torch.Tensor:
    """`w = 1 + scale * (sigmoid(alpha * D) - 1/2)`; the sign of `alpha` boosts high (+) or low (-) divergence.

    For D >= 0 the weights lie in `[1, 1 + scale/2]` (alpha > 0) or `[1 - scale/2, 1]` (alpha < 0); their mean is not
    1. `sigmoid(x) - 1/2` is computed as `tanh(x/2) / 2`, which is exact near 0, and the product with `alpha` saturates
    instead of overflowing.
    """
    return 1 + scale * torch.tanh(alpha * divergence.float() / 2) / 2


def low_prob_weights(old_logps: torch.Tensor, coef: float) -> torch.Tensor:
    """`w = 1 + coef - coef * pi_old(token)`: improbable tokens get more, in `[1, 1 + coef]` (arXiv 2603.22117)."""
    return 1 + coef - coef * old_logps.float().exp()
