"""Where to intervene: a score a position, from the two policies' distributions there. Above a threshold, intervene.

A criterion is a pure function; a new one is written here and named in `CRITERIA`. `js` is the publication's (arXiv
2603.22446, section 4), `delta_logp` that of arXiv 2603.22117; the others are controls.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from tokenshift.analysis.divergence.row_sums import row_sums
from tokenshift.analysis.sampling.shared_noise import Row, mixed_seed
from tokenshift.analysis.thresholds import LOG_2

STRIP = 3 * 2**18
"""Bytes of a strip of one policy's log-probabilities that is looked at at a time."""


@dataclass(frozen=True)
class Positions:
    """B positions at which both policies are about to draw.

    Attributes:
        primary, intervention: log-probabilities `(B, V)` at the sampling temperature, not truncated.
        drawn: `(B,)` int64, the primary's draws.
        rows: (problem_id, sample_id) of each.
        positions: of each in its completion, from 0.
        seed: of the run.
    """

    primary: torch.Tensor
    intervention: torch.Tensor
    drawn: torch.Tensor
    rows: Sequence[Row]
    positions: Sequence[int]
    seed: int


Criterion = Callable[[Positions], torch.Tensor]
"""From B positions to scores `(B,)`."""


def _mean(places: Positions, name: str) -> torch.Tensor:
    """One of `row_sums`' means, the primary taken as its base."""
    strip = max(1, STRIP // (4 * places.primary.shape[-1]))
    floor = torch.finfo(torch.float32).min / 4  # a log-probability of -inf has no place in its arithmetic
    primary, intervention = (each.float().clamp(min=floor) for each in (places.primary, places.intervention))
    return row_sums(primary, intervention, frozenset({name}), strip=strip, overwrite=False).means[name]


def js(places: Positions) -> torch.Tensor:
    """JS between the policies, nats, 0 to ln 2."""
    return _mean(places, "js")


def forward_kl(places: Positions) -> torch.Tensor:
    """KL(primary‖intervention), nats."""
    return _mean(places, "forward_kl")


def reverse_kl(places: Positions) -> torch.Tensor:
    """KL(intervention‖primary), nats."""
    return _mean(places, "reverse_kl")


def entropy_primary(places: Positions) -> torch.Tensor:
    """Entropy of the primary, nats."""
    return _mean(places, "entropy_base")


def entropy_intervention(places: Positions) -> torch.Tensor:
    """Entropy of the intervention, nats."""
    return _mean(places, "entropy_rl")


def delta_logp(places: Positions) -> torch.Tensor:
    """How much less probable the primary's draw is under the intervention: log primary - log intervention, signed."""
    drawn = places.drawn.unsqueeze(-1)
    return (places.primary.gather(-1, drawn) - places.intervention.gather(-1, drawn)).squeeze(-1)


def random_position(places: Positions) -> torch.Tensor:
    """A number in [0, 1) that depends on the place alone: above `1 - rate` it is a share `rate` of places."""
    pairs = zip(places.rows, places.positions, strict=True)
    numbers = [mixed_seed(places.seed, row, position, 1) / 2**64 for row, position in pairs]
    return torch.tensor(numbers, device=places.drawn.device)


def first_tokens(places: Positions) -> torch.Tensor:
    """Minus the position: above `-m` are the first m tokens."""
    return -torch.tensor(places.positions, dtype=torch.float32, device=places.drawn.device)


def always(places: Positions) -> torch.Tensor:
    """Above every threshold."""
    return torch.full(places.drawn.shape, torch.inf, device=places.drawn.device)


def never(places: Positions) -> torch.Tensor:
    """Above no threshold."""
    return -always(places)


CRITERIA: dict[str, Criterion] = {
    "js": js,
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "entropy_primary": entropy_primary,
    "entropy_intervention": entropy_intervention,
    "delta_logp": delta_logp,
    "random": random_position,
    "position": first_tokens,
    "all": always,
    "none": never,
}

RANGES: dict[str, tuple[float, float]] = {
    "js": (0.0, LOG_2),
    "forward_kl": (0.0, float("inf")),
    "reverse_kl": (0.0, float("inf")),
    "entropy_primary": (0.0, float("inf")),
    "entropy_intervention": (0.0, float("inf")),
    "random": (0.0, 1.0),
    "position": (-float("inf"), 0.0),
}
"""Thresholds that make sense, both ends included; any number for the others."""


def check_threshold(criterion: str, threshold: float) -> None:
    """
    Raises:
        ValueError: for an unknown criterion, or a threshold outside its range.
    """
    if criterion not in CRITERIA:
        raise ValueError(f"criterion={criterion!r} is not known; choose one of {', '.join(CRITERIA)}.")
    low, high = RANGES.get(criterion, (-float("inf"), float("inf")))
    if not low <= threshold <= high:
        top = "ln 2" if criterion == "js" else f"{high:g}"
        raise ValueError(f"epsilon={threshold:g} must lie in [{low:g}, {top}] for the criterion {criterion}.")
