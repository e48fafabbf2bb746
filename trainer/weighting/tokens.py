"""The argument of a weighting function: the tokens of one backward pass as `(B, T)` tensors.

Shape legend: B completions, T tokens of the longest one, N valid tokens.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from tokenshift.analysis.registry import close_match

REFERENCE_STATISTICS: Mapping[str, str] = {
    "js": "js",
    "forward_kl": "forward_kl",
    "reverse_kl": "reverse_kl",
    "entropy_reference": "entropy_base",
    "logp_reference": "logp_base",
}
"""Statistics that need the reference's distributions: the name in `needs`, and the output of `token_statistics`."""

TOKEN_STATISTICS = ("entropy", *REFERENCE_STATISTICS)
"""Statistics that a function has to ask for."""

ALWAYS = ("logps", "old_logps", "divergence", "mask", "advantage", "reward", "position", "length", "step")
"""Attributes that every function is given. `needs` may name them; `divergence` is then named in cards."""


@dataclass(frozen=True)
class Tokens:
    """The completion tokens that a weighting function looks at.

    All tensors are `(B, T)`, float32 unless said otherwise, detached. Outside `mask` the log-probabilities, the
    divergence and the statistics are 0; what the function returns there is ignored.

    Attributes:
        logps: log-probabilities of the sampled tokens under the policy in training (nats).
        old_logps: the same under the policy that produced the rollouts; equal to `logps` until the policy has moved.
        divergence: the config's `divergence` (nats).
        mask: bool, the valid tokens: not padding, not tool results, not completions that are masked as a whole.
        advantage: the advantage of the token's completion, before weighting.
        reward: the weighted sum of the rewards of the token's completion; 0 where no reward function gave one.
        position: int64, 0 for a completion's first valid token, 1 for the next one.
        length: int64, the valid tokens of the completion, at least 1.
        step: optimizer updates made so far, a plain integer.
        statistics: by name, what the function asked for in `needs`; each is an attribute as well: `js`, `forward_kl` =
            KL(reference‖policy), `reverse_kl` = KL(policy‖reference), `entropy` of the policy, `entropy_reference`,
            and `logp_reference`, the sampled token's log-probability under the reference (all nats). The reference is
            the config's `divergence_reference`.

    Raises:
        AttributeError: for a statistic that was not asked for, or a name that there is not.
    """

    logps: torch.Tensor
    old_logps: torch.Tensor
    divergence: torch.Tensor
    mask: torch.Tensor
    advantage: torch.Tensor
    reward: torch.Tensor
    position: torch.Tensor
    length: torch.Tensor
    step: int
    statistics: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        statistics = self.__dict__.get("statistics", {})
        if name in statistics:
            return statistics[name]
        if name in TOKEN_STATISTICS:
            raise AttributeError(f"tokens.{name} is there only for a function that asks for it: needs=({name!r},)")
        raise AttributeError(f"tokens has no {name}{close_match(name, (*ALWAYS, *TOKEN_STATISTICS))}")


def on_tokens(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The valid tokens' values `(N,)` at their places `(B, T)`, 0 elsewhere; float32."""
    spread = torch.zeros(mask.shape, dtype=torch.float32, device=values.device)
    spread[mask] = values.float()
    return spread


def make_tokens(
    *,
    mask: torch.Tensor,
    logps: torch.Tensor,
    old_logps: torch.Tensor,
    divergence: torch.Tensor,
    advantage: torch.Tensor,
    reward: torch.Tensor,
    step: int,
    statistics: Mapping[str, torch.Tensor],
) -> Tokens:
    """The object that a weighting function is given.

    Args:
        mask: `(B, T)` bool.
        logps, old_logps, divergence, statistics: of the valid tokens, `(N,)` each.
        advantage, reward: of the completions, `(B,)` each.
        step: optimizer updates made so far.
    """
    count = mask.sum(dim=1, keepdim=True)
    return Tokens(
        logps=on_tokens(logps, mask),
        old_logps=on_tokens(old_logps, mask),
        divergence=on_tokens(divergence, mask),
        mask=mask,
        advantage=advantage.float().unsqueeze(1).expand(mask.shape),
        reward=reward.float().unsqueeze(1).expand(mask.shape),
        position=(mask.cumsum(dim=1) - 1).clamp(min=0),
        length=count.clamp(min=1).expand(mask.shape),
        step=step,
        statistics={name: on_tokens(values, mask) for name, values in statistics.items()},
    )


LENGTHS = (6, 1, 0, 4)
"""Valid tokens of the random completions, with one of a single token and one without any."""


def random_mask() -> torch.Tensor:
    """The valid tokens of the random completions, `(B, T)` bool; the last completion has a gap, a tool's result."""
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)
    mask[-1, 1] = False
    return mask


def random_logps(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the random completions' valid tokens under the policy and the old policy, `(N,)` each."""
    size = int(random_mask().sum())
    old = torch.log(torch.rand(size, generator=generator).clamp(min=1e-4))
    return (old + 0.2 * torch.randn(size, generator=generator)).clamp(max=0.0), old


def random_tokens(needs: tuple[str, ...], divergence: torch.Tensor | None, signed: bool) -> Tokens:
    """A few random tokens, always the same ones, on which a weighting function can be tried.

    Args:
        needs: what the function asks for.
        divergence: `(N,)`, made of `random_logps`; random when None.
        signed: whether a random divergence may be negative.
    """
    generator = torch.Generator().manual_seed(0)
    mask = random_mask()
    logps, old_logps = random_logps(generator)

    def between(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(len(logps), generator=generator)

    statistics = {name: between(0.0, math.log(2)) for name in TOKEN_STATISTICS if name in needs}
    if "logp_reference" in statistics:
        statistics["logp_reference"] = between(-9.0, 0.0)
    return make_tokens(
        mask=mask,
        logps=logps,
        old_logps=old_logps,
        divergence=between(-0.5 if signed else 0.0, 0.5) if divergence is None else divergence,
        advantage=torch.tensor([1.0, -1.0, 0.5, -0.5]),
        reward=torch.tensor([1.0, 0.0, 1.0, 0.0]),
        step=1,
        statistics=statistics,
    )
