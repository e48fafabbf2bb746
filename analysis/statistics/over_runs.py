"""The mean of a number over several trainings, with an interval for other trainings and other problems.

Shape legend: S runs, P problems.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tokenshift.analysis.statistics.crossed_design import CrossedDifference, crossed_difference


def mean_over_runs(values: np.ndarray | None) -> dict[str, Any] | None:
    """The mean over runs of values `(S, P)`, with its 95 % interval for other runs and problems.

    Returns:
        `value`; `low` and `high`, None with a single run or problem; `sd`, the standard deviation between the runs'
        means, which holds the noise of problems that runs do not share; `runs`, the means of the runs. None for None.
    """
    return None if values is None else run_entry(crossed_difference([values]), values.mean(axis=1))


def run_entry(mean: CrossedDifference, run_means: np.ndarray) -> dict[str, Any]:
    """The entry of `mean_over_runs` for a mean over runs and the means `(S,)` of the runs."""
    sd = float(run_means.std(ddof=1)) if len(run_means) > 1 else None
    ends = {"value": mean.difference, "low": mean.low, "high": mean.high}
    return {**ends, "sd": sd, "runs": [float(value) for value in run_means]}


def within_bounds(mean: Mapping[str, Any], top: float = 1.0) -> dict[str, Any]:
    """A share, or another mean that is never negative, with its interval, which is Student's, cut to [0, top]."""
    ends = {name: None if mean[name] is None else min(top, max(0.0, mean[name])) for name in ("low", "high")}
    return {**mean, **ends}
