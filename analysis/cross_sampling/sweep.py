"""The policies of a sweep: every direction, criterion and threshold that is to be decoded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenshift.analysis.cross_sampling.intervention import Intervention
from tokenshift.analysis.cross_sampling.pilot import Threshold

DIRECTIONS = ("forward", "backward")
"""Forward: the base decodes and RL intervenes. Backward: the other way."""


ENDS = ("none", "all")
"""Criteria without a threshold: the two ends of every curve."""


@dataclass(frozen=True)
class SweptPolicy:
    """A policy of the sweep with its seed; attributes as the columns of the same names."""

    direction: str
    criterion: str
    epsilon: float | None = None
    budget: float | None = None
    most: int | None = None
    gamma: float = 0.0
    seed: int = 0

    @property
    def plan(self) -> Intervention:
        return Intervention(self.criterion, self.epsilon or 0.0, self.most, self.gamma)

    @property
    def name(self) -> str:
        """Of its file; a budget stands for the epsilon that was found for it."""
        threshold = "" if self.epsilon is None else f"-epsilon{self.epsilon:.17g}"
        threshold = threshold if self.budget is None else f"-budget{self.budget:.17g}"
        most = "" if self.most is None else f"-most{self.most}"
        gamma = f"-gamma{self.gamma:.17g}" if self.gamma else ""
        return f"{self.direction}-{self.criterion}{threshold}{most}{gamma}-seed{self.seed}"


def sweep_cells(
    directions: Sequence[str],
    criteria: Sequence[str],
    epsilons: Sequence[float],
    found: Iterable[Threshold],
    gammas: Sequence[float],
    seeds: Sequence[int],
    most: int | None = None,
) -> list[SweptPolicy]:
    """All cells: `none` and `all` of each direction and seed, then each criterion at each threshold.

    What comes twice is one cell, as are two budgets with one threshold, which `position` has where responses are
    short.

    Args:
        directions, criteria, gammas, seeds: of the sweep.
        epsilons: thresholds given, for all criteria.
        found: thresholds found for budgets.
        most: effective replacements at most, of all cells but `none` and `all`.
    """
    found = list(found)
    policies: dict[tuple[Any, ...], SweptPolicy] = {}
    for direction in directions:
        every = dict.fromkeys([0.0, *gammas])
        ends = [SweptPolicy(direction, "none"), *(SweptPolicy(direction, "all", gamma=gamma) for gamma in every)]
        swept = [
            SweptPolicy(direction, criterion, epsilon, budget, most, gamma)
            for criterion in criteria
            if criterion not in ENDS
            for gamma in gammas
            for epsilon, budget in [
                *((epsilon, None) for epsilon in epsilons),
                *((each.epsilon, each.budget) for each in found if each.key[:3] == (direction, criterion, gamma)),
            ]
        ]
        for cell in [*ends, *swept]:
            policies.setdefault((cell.direction, cell.plan), cell)
    return [replace(cell, seed=seed) for seed in dict.fromkeys(seeds) for cell in policies.values()]
