"""The policies of a sweep: every direction, criterion and threshold that is to be decoded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenshift.analysis.cross_sampling.criterion_registry import criterion_file_name
from tokenshift.analysis.cross_sampling.intervention import Intervention
from tokenshift.analysis.cross_sampling.pilot import INTERVENED, Threshold

DIRECTIONS = ("forward", "backward")
"""Forward: the base decodes and RL intervenes. Backward: the other way."""


ENDS = ("none", "all")
"""Criteria without a threshold: the two ends of every curve."""


@dataclass(frozen=True)
class SweptPolicy:
    """A policy of the sweep with the seed of its responses; the attributes are as the columns of the same names."""

    direction: str
    criterion: str
    epsilon: float | None = None
    budget: float | None = None
    most: int | None = None
    gamma: float = 0.0
    seed: int = 0
    sharpening: float | None = None
    match: str = INTERVENED

    @property
    def plan(self) -> Intervention:
        """The rule for when the intervention's draw is taken."""
        return Intervention(self.criterion, self.epsilon or 0.0, self.most, self.gamma, self.sharpening)

    @property
    def name(self) -> str:
        """The name of the file with the policy's rows; a budget stands for the epsilon that was found for it."""
        threshold = "" if self.epsilon is None else f"-epsilon{self.epsilon:.17g}"
        if self.budget is not None:
            matched = "budget" if self.match == INTERVENED else self.match
            threshold = f"-{matched}{self.budget:.17g}"
        most = "" if self.most is None else f"-most{self.most}"
        gamma = f"-gamma{self.gamma:.17g}" if self.gamma else ""
        sharpening = "" if self.sharpening is None else f"-sharpening{self.sharpening:.17g}"
        criterion = criterion_file_name(self.criterion)
        return f"{self.direction}-{criterion}{threshold}{most}{gamma}{sharpening}-seed{self.seed}"


def sweep_cells(
    directions: Sequence[str],
    criteria: Sequence[str],
    epsilons: Sequence[float],
    found: Iterable[Threshold],
    gammas: Sequence[float],
    seeds: Sequence[int],
    most: int | None = None,
    sharpening: Sequence[float] = (),
) -> list[SweptPolicy]:
    """All policies of a sweep: `none` and `all` of each direction and seed, then each criterion at each threshold.

    A policy that comes twice is listed once, as are two budgets with one threshold, which `position` has where
    responses are short.

    Args:
        directions, criteria, gammas, seeds: the values that are swept over.
        epsilons: thresholds given, for all criteria.
        found: thresholds found for budgets; those that do not meet theirs are left out.
        most: effective replacements per response at most, of all policies but `none` and `all`.
        sharpening: powers to which the base is raised to intervene in place of the other model, in policies of their
            own without gamma.
    """
    thresholds = [threshold for threshold in found if threshold.met]
    arms: list[tuple[float, float | None]] = [(gamma, None) for gamma in gammas]
    arms += [(0.0, power) for power in sharpening]
    policies: dict[tuple[Any, ...], SweptPolicy] = {}
    for direction in directions:
        ends = [
            SweptPolicy(direction, "none"),
            *(SweptPolicy(direction, "all", gamma=gamma, sharpening=power) for gamma, power in [(0.0, None), *arms]),
        ]
        swept = [
            SweptPolicy(direction, criterion, epsilon, budget, most, gamma, sharpening=power, match=match)
            for criterion in criteria
            if criterion not in ENDS
            for gamma, power in arms
            for epsilon, budget, match in [
                *((epsilon, None, INTERVENED) for epsilon in epsilons),
                *(
                    (threshold.epsilon, threshold.budget, threshold.match)
                    for threshold in thresholds
                    if threshold.key[:4] == (direction, criterion, gamma, power)
                ),
            ]
        ]
        for policy in [*ends, *swept]:
            policies.setdefault((policy.direction, policy.plan), policy)
    return [replace(policy, seed=seed) for seed in dict.fromkeys(seeds) for policy in policies.values()]
