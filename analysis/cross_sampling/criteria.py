"""The shipped criteria; importing the module registers them.

`js_top_p` is the criterion of arXiv 2603.22446 (section 3), `js` is the same of whole distributions, and `delta_logp`
is that of arXiv 2603.22117; the others are controls.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from tokenshift.analysis.cross_sampling.criterion_registry import (
    CRITERIA,
    Positions,
    named_criterion,
    register_criterion,
)
from tokenshift.analysis.sampling.shared_noise import mixed_seed
from tokenshift.analysis.thresholds import LOG_2

if TYPE_CHECKING:
    from tokenshift.analysis.cross_sampling.intervention import CrossResponse


PUBLISHED_TOP_P = 0.7
"""The nucleus to which the publication truncates both distributions."""


def _random_at(share: float) -> float:
    return 1 - share


def _position_at(share: float, responses: Sequence["CrossResponse"]) -> float:
    """The first tokens of each response, equally many, at least one."""
    tokens = sum(len(response.scores) for response in responses)
    return -float(max(1, round(share * tokens / len(responses))))


@register_criterion(range=(0.0, LOG_2), needs=("js",))
def js(positions: Positions) -> torch.Tensor:
    """JS between the policies, nats, 0 to ln 2."""
    return positions.js


@register_criterion(range=(0.0, math.inf), needs=("forward_kl",))
def forward_kl(positions: Positions) -> torch.Tensor:
    """KL(primary‖intervention), nats."""
    return positions.forward_kl


@register_criterion(range=(0.0, math.inf), needs=("reverse_kl",))
def reverse_kl(positions: Positions) -> torch.Tensor:
    """KL(intervention‖primary), nats."""
    return positions.reverse_kl


@register_criterion(range=(0.0, LOG_2))
def js_top_p(positions: Positions, *, top_p: float = PUBLISHED_TOP_P) -> torch.Tensor:
    """JS between the policies truncated to the nucleus `top_p` and renormalised, nats, 0 to ln 2."""
    return positions.js_top_p(top_p)


@register_criterion(range=(0.0, math.inf), needs=("entropy_primary",))
def entropy_primary(positions: Positions) -> torch.Tensor:
    """Entropy of the primary, nats."""
    return positions.entropy_primary


@register_criterion(range=(0.0, math.inf), needs=("entropy_intervention",))
def entropy_intervention(positions: Positions) -> torch.Tensor:
    """Entropy of the intervention, nats."""
    return positions.entropy_intervention


@register_criterion()
def delta_logp(positions: Positions) -> torch.Tensor:
    """Log-probability of the primary's draw under the primary minus that under the intervention, signed."""
    drawn = positions.drawn.unsqueeze(-1)
    return (positions.primary.gather(-1, drawn) - positions.intervention.gather(-1, drawn)).squeeze(-1)


@register_criterion("random", range=(0.0, 1.0), at_budget=_random_at)
def random_position(positions: Positions) -> torch.Tensor:
    """A number in [0, 1) that depends on the position alone: above `1 - rate` it is a share `rate` of positions."""
    pairs = zip(positions.rows, positions.positions, strict=True)
    numbers = [mixed_seed(positions.seed, row, position, 1) / 2**64 for row, position in pairs]
    return torch.tensor(numbers, device=positions.drawn.device)


@register_criterion(range=(0.0, 1.0))
def random_disagreement(positions: Positions) -> torch.Tensor:
    """The number of `random` where the two draws differ, else 0: above `1 - rate` it is a share `rate` of those."""
    return torch.where(positions.drawn == positions.intervention_drawn, 0.0, random_position(positions))


@register_criterion("position", range=(-math.inf, 0.0), at_budget=_position_at)
def first_tokens(positions: Positions) -> torch.Tensor:
    """Minus the position: above `-m` are the first m tokens."""
    return -torch.tensor(positions.positions, dtype=torch.float32, device=positions.drawn.device)


@register_criterion("all")
def always(positions: Positions) -> torch.Tensor:
    """Above every threshold."""
    return torch.full(positions.drawn.shape, torch.inf, device=positions.drawn.device)


@register_criterion("none")
def never(positions: Positions) -> torch.Tensor:
    """Above no threshold."""
    return -always(positions)


SHIPPED_CRITERIA = tuple(CRITERIA)
"""Names of the criteria that the project ships; a user's are registered later."""


def users_criteria_words(names: Iterable[str]) -> str:
    """One line about each criterion that the project does not ship, by its docstring; empty where there is none."""
    entries = [
        named_criterion(name) for name in dict.fromkeys(names) if name.partition("(")[0] not in SHIPPED_CRITERIA
    ]
    return "".join(f"\n\n{entry.name}: {entry.words}" for entry in entries if entry.words)
