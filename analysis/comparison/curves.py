"""Learning curves of one training, and the areas under them: the mean of a curve over the updates of the training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Curve = list[tuple[int, float]]
"""Pairs of an update and the value after it."""

FEWEST_PROBES = 3
"""The fewest values of a held-out curve that have an area: two are the start and the end, which say nothing new."""

TOTAL_REWARD = "reward"
"""The key under which TRL logs the weighted sum of all rewards."""


@dataclass(frozen=True)
class LearningCurve:
    """The mean reward of the training's completions against updates, as a training logged it.

    The completions of a generation are those of the policy before the generation's updates, so a value holds from the
    log before it: a training that logs every 4 updates and generates every 16 has values from 0, 16, 32 and so on.

    Attributes:
        reward: The name of the reward function; `"reward"` for the sum of all rewards.
        starts: The update from which each value holds, up to the next value's; increasing.
        values: The mean rewards. With dynamic sampling they are of all completions, those of replaced groups too.
        end: The last update of the training.
    """

    reward: str
    starts: list[int]
    values: list[float]
    end: int

    @property
    def area(self) -> float:
        """The mean of the values over updates, each weighted by the number of updates for which it holds."""
        return float(np.average(self.values, weights=np.diff([*self.starts, self.end])))


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
    last = 0
    for entry in history:
        if key not in entry and "loss" not in entry:
            continue
        value, step = entry.get(key), int(entry["step"])
        if value is not None and math.isfinite(value) and step > last:
            starts.append(last)
            values.append(float(value))
        last = max(last, step)
    return LearningCurve(reward, starts, values, last) if values else None


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
