"""The three kinds of weighting: what a function of each may return, and what is done with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Kind:
    """A kind of weighting.

    Attributes:
        allowed: which values of a tensor are allowed, a bool tensor of its shape.
        wanted: the same in words.
        floating: whether values must be floating-point numbers; otherwise they may be bool or whole numbers too.
        neutral: the value that changes nothing.
        combine: the weighted advantages `(B, T)` from the completions' `(B, 1)` and the values `(B, T)`.
        normalizes: whether dividing the values by their mean makes sense.
        said: a sentence of the model card, with a place for the formula.
        metric: prefix of the logged metrics.
        column: prefix of the columns in the completions table.
    """

    allowed: Callable[[torch.Tensor], torch.Tensor]
    wanted: str
    floating: bool
    neutral: float
    combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    normalizes: bool
    said: str
    metric: str
    column: str


KINDS: Mapping[str, Kind] = {
    "multiplier": Kind(
        allowed=lambda values: (values >= 0) & (values < torch.inf),
        wanted="finite and at least 0",
        floating=True,
        neutral=1.0,
        combine=torch.mul,
        normalizes=True,
        said="Each token's advantage was multiplied by `{}`.",
        metric="advantage_weight",
        column="weight",
    ),
    "mask": Kind(
        allowed=lambda values: (values == 0) | (values == 1),
        wanted="0 or 1 (or a bool)",
        floating=False,
        neutral=1.0,
        combine=torch.mul,
        normalizes=True,
        said="The advantage of each token was kept where `{}` is 1, and set to 0 elsewhere.",
        metric="advantage_weight",
        column="weight",
    ),
    "additive": Kind(
        allowed=torch.isfinite,
        wanted="finite",
        floating=True,
        neutral=0.0,
        combine=torch.add,
        normalizes=False,
        said="To each token's advantage was added `{}`.",
        metric="advantage_bonus",
        column="bonus",
    ),
}
"""By name. A masked token has advantage 0, so it adds nothing to the policy gradient; it still counts among the tokens
that a loss is averaged over, and in a KL penalty."""
