"""The shipped divergences and weightings: pure functions on tensors, and their entries in the registries.

Shapes of the pure functions are free (elementwise). All logs are natural. Source of the formulas: arXiv 2603.22446,
section 5 (sigmoid weighting), and arXiv 2603.22117 (low-probability boost). The random share is the control of arXiv
2506.01939's high-entropy mask.
"""

from collections.abc import Mapping
from typing import Any

import torch

from tokenshift.analysis.divergence.from_logits import js_divergence, kl_divergence
from tokenshift.trainer.weighting.registry import (
    DIVERGENCES,
    WEIGHTINGS,
    Divergence,
    Weighting,
    register_divergence,
    register_weighting,
)
from tokenshift.trainer.weighting.tokens import Tokens

# Divergences ---------------------------------------------------------------------------------------------------------


@register_divergence(formula="D = exp(d) - 1 - d, d = log pi_theta - log pi_old")
def k3(logps: torch.Tensor, old_logps: torch.Tensor) -> torch.Tensor:
    """`exp(d) - 1 - d`: unbiased for KL(pi_old‖pi_theta) and non-negative (nats).

    Written with `expm1`: near `d = 0`, where most tokens are, `exp(d) - 1` would lose every digit of a value of order
    `d²`. What rounding is left could still be negative, so it is clamped at the bound.
    """
    d = logps.float() - old_logps.float()
    return (torch.expm1(d) - d).clamp(min=0.0)


@register_divergence(formula="D = -d, d = log pi_theta - log pi_old", signed=True)
def k1(logps: torch.Tensor, old_logps: torch.Tensor) -> torch.Tensor:
    """`-d`, with `d = log pi_theta - log pi_old` at the sampled token: unbiased for KL(pi_old‖pi_theta), signed."""
    return old_logps.float() - logps.float()


@register_divergence(formula="D = d^2 / 2, d = log pi_theta - log pi_old")
def k2(logps: torch.Tensor, old_logps: torch.Tensor) -> torch.Tensor:
    """`d² / 2`: biased, low variance, non-negative (nats)."""
    d = logps.float() - old_logps.float()
    return d * d / 2


for _entry, _readable in (
    (Divergence("js", "D = JS(reference, pi_theta)", statistic="js", truncated="js_top_p"), js_divergence),
    (Divergence("forward_kl", "D = KL(reference‖pi_theta)", statistic="forward_kl"), kl_divergence),
    (Divergence("reverse_kl", "D = KL(pi_theta‖reference)", statistic="reverse_kl"), kl_divergence),
):
    DIVERGENCES.add(_entry.name, _readable, _entry)


# Weightings ----------------------------------------------------------------------------------------------------------


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


def _sigmoid_mistake(options: Mapping[str, Any], divergence: Divergence) -> str | None:
    alpha, scale = options["alpha"], options["s"]
    if (alpha < 0 or divergence.signed) and scale > 2:
        return (
            f"divergence_scale={scale!r} lets weights fall to 1 - s/2 < 0, which would turn advantages round; use a "
            "value of at most 2."
        )
    if alpha == 0:
        return "divergence_alpha=0 makes every weight 1; set it (try 100 or -100) or use advantage_weighting='none'."
    return None


@register_weighting(
    formula="w = 1 + s * (sigmoid(alpha * D) - 1/2)",
    needs=("divergence",),
    fields={"alpha": "divergence_alpha", "s": "divergence_scale"},
    check=_sigmoid_mistake,
    variant=lambda options, divergence: f"{'high' if options['alpha'] > 0 else 'low'}_{divergence.name}",
)
def sigmoid(tokens: Tokens, *, alpha: float = 100.0, s: float = 1.0) -> torch.Tensor:
    """The publication's weighting, `sigmoid_weights` of the divergence."""
    return sigmoid_weights(tokens.divergence, alpha, s)


def _no_weighting(tokens: Tokens) -> torch.Tensor:
    """Every weight is 1."""
    return torch.ones_like(tokens.logps)


WEIGHTINGS.add("none", _no_weighting, Weighting(name="none", function=None, formula="w = 1 (stock GRPO)"))


@register_weighting(
    formula="w = 1 + c - c * pi_old(token)",
    varies_at_first_update=True,
    fields={"c": "low_prob_coef"},
    check=lambda options, divergence: (
        None if options["c"] else "low_prob_coef=0 makes every weight 1; set it (arXiv 2603.22117 uses 0.2)."
    ),
)
def low_prob(tokens: Tokens, *, c: float = 0.2) -> torch.Tensor:
    """The low-probability boost, `low_prob_weights`."""
    return low_prob_weights(tokens.old_logps, c)


def _share_mistake(options: Mapping[str, Any], divergence: Divergence) -> str | None:
    share = options["share"]
    return None if 0 < share < 1 else f"weighting_options: share={share!r} must lie between 0 and 1."


@register_weighting(
    formula="m = [the token is in a random share]",
    kind="mask",
    varies_at_first_update=True,
    check=_share_mistake,
    variant=lambda options, divergence: f"random_{100 * options['share']:g}",
    shuffled=True,
)
def random_share(tokens: Tokens, *, share: float = 0.2) -> torch.Tensor:
    """The control of a mask that keeps a share of the tokens, as `top_entropy_quantile` does: a random share.

    What it returns keeps the first tokens, as many as the share, and at least one; the trainer then shuffles it over
    the valid tokens of all ranks.
    """
    index = tokens.mask.flatten().cumsum(0).view(tokens.mask.shape)  # 1 for the first valid token of this rank
    count = int(tokens.mask.sum())
    return tokens.mask & (index <= max(1, round(share * count)))
