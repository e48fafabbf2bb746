"""Learning curves of one training, and the areas under them: the mean of a curve over the updates of the training.

An area is one of accuracies: a reward of two values, such as -1 and 1, becomes the share of completions with the
higher one. A reward of more values has no such share, and its own mean is the curve.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tokenshift.analysis.sampling.correctness import is_correct

Curve = list[tuple[int, float]]
"""Pairs of an update and the value after it."""

EXTREMES = ("lowest", "highest")
"""The names under which a training logs the lowest and the highest reward of a function that gave at most two
different ones since the log before: `rewards/NAME/lowest`."""

FEWEST_PROBES = 3
"""The fewest values of a held-out curve that have an area: two are the start and the end, which say nothing new."""

TOTAL_REWARD = "reward"
"""The key under which TRL logs the weighted sum of all rewards."""

SHIPPED_VALUES = {"accuracy_reward": (0.0, 1.0), "signed_accuracy_reward": (-1.0, 1.0)}
"""The values of the shipped rewards for a wrong and for a right completion. Both judge alike, so that their accuracies
can be compared."""


@dataclass(frozen=True)
class LearningCurve:
    """The mean reward of the training's completions against updates, as a training logged it, and its area.

    The completions of a generation are those of the policy before the generation's updates, so a value holds from the
    log before it: a training that logs every 4 updates and generates every 16 has values from 0, 16, 32 and so on.

    Attributes:
        reward: The name of the reward function; `"reward"` for the sum of all rewards.
        starts: The update from which each value holds, up to the next value's; increasing.
        values: The mean rewards. With dynamic sampling they are of all completions, those of replaced groups too.
        end: The last update of the training.
        seen: The different rewards that the training gave, at most two; None where it gave more, or did not log them.
        levels: The rewards of a wrong and of a right completion; None where the reward has more than two values, or
            they are not known: then the mean reward stands for the accuracy.
    """

    reward: str
    starts: list[int]
    values: list[float]
    end: int
    seen: frozenset[float] | None = None
    levels: tuple[float, float] | None = None

    @property
    def area(self) -> float:
        """The mean of the accuracies over updates, each weighted by the number of updates for which it holds."""
        area = float(np.average(self.values, weights=np.diff([*self.starts, self.end])))
        if self.levels in (None, (0.0, 1.0)):
            return area
        wrong, right = self.levels
        return (area - wrong) / (right - wrong)


def training_curve(history: Sequence[Mapping[str, Any]], reward_func: str | None = None) -> LearningCurve | None:
    """The learning curve in the dictionaries that a training logged, in order; None where there is no reward.

    Args:
        history: TRL's logs, each with `step`; those with `loss` or a reward are logs of the training.
        reward_func: The reward function that judges the evaluation, by its name or dotted path. Its mean is the curve
            where the training logs it; otherwise that of the training's first reward function, or else the sum.
    """
    names = [key.removeprefix("rewards/").removesuffix("/mean") for entry in history for key in entry if _is_mean(key)]
    wanted = (reward_func or "").rpartition(".")[2]
    reward = wanted if wanted in names else names[0] if names else TOTAL_REWARD
    key = f"rewards/{reward}/mean" if names else TOTAL_REWARD
    starts: list[int] = []
    values: list[float] = []
    seen: set[float] | None = set()
    last = 0
    for entry in history:
        if key not in entry and "loss" not in entry:
            continue
        value, step = entry.get(key), int(entry["step"])
        if value is not None and math.isfinite(value) and step > last:
            starts.append(last)
            values.append(float(value))
            extremes = {
                float(entry[name]) for name in (f"rewards/{reward}/{end}" for end in EXTREMES) if name in entry
            }
            seen = None if seen is None or not extremes else seen | extremes
        last = max(last, step)
    if not values:
        return None
    curve = LearningCurve(reward, starts, values, last, None if seen is None or len(seen) > 2 else frozenset(seen))
    return replace(curve, levels=reward_levels([curve]))


def reward_levels(curves: Sequence[LearningCurve]) -> tuple[float, float] | None:
    """The rewards of a wrong and of a right completion, by what all trainings with one reward function gave.

    Args:
        curves: Learning curves of one and the same reward function.

    Returns:
        None where it has more than two values, or some training did not log them and it is no shipped reward. Where
        all completions had one and the same reward, the usual threshold says whether they are right.
    """
    if not curves:
        return None
    shipped = SHIPPED_VALUES.get(curves[0].reward)
    logged = [curve.seen for curve in curves if curve.seen is not None]
    values: frozenset[float] = frozenset().union(*logged)
    if shipped is not None and values <= set(shipped):
        return shipped
    if len(logged) < len(curves) or len(values) > 2:
        return None
    low, high = min(values), max(values)
    if low < high:
        return low, high
    return (low - 1, low) if is_correct(low) else (low, low + 1)


def in_accuracy(curves: Sequence[LearningCurve | None]) -> list[LearningCurve | None]:
    """The curves with the `levels` that all of one reward function have in common."""
    names = {curve.reward for curve in curves if curve is not None}
    levels = {name: reward_levels([curve for curve in curves if curve and curve.reward == name]) for name in names}
    return [None if curve is None else replace(curve, levels=levels[curve.reward]) for curve in curves]


def are_comparable(rewards: Sequence[str]) -> bool:
    """Whether areas of these reward functions can stand beside each other: one function, or shipped accuracies."""
    return len(set(rewards)) <= 1 or set(rewards) <= set(SHIPPED_VALUES)


def _is_mean(key: str) -> bool:
    return key.startswith("rewards/") and key.endswith("/mean")


def trapezoid_mean(curve: Curve) -> float | None:
    """The mean over updates of a curve that is known at some of them and straight in between (trapezoidal rule).

    Args:
        curve: The values after so many updates.

    Returns:
        None for fewer than `FEWEST_PROBES` different updates.
    """
    points = sorted(dict(curve).items())
    if len(points) < FEWEST_PROBES:
        return None
    steps, values = np.array(points, dtype=float).T
    return float(np.trapezoid(values, steps) / (steps[-1] - steps[0]))
