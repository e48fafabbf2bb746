"""Means over the problems of one or several sets, with resamples by problem.

The sets are fixed and their problems a sample, so problems are resampled within each set.

Shape legend: P problems of a set, R resamples.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap, Resampled

Alike = Literal["problems", "sets"]
"""What counts alike in a mean over several sets: each problem, or each set."""


def set_bootstraps(sizes: Sequence[int], resamples: int, seed: int = 0) -> list[ProblemBootstrap]:
    """Independent resamples for sets of these numbers of problems."""
    return [ProblemBootstrap(size, resamples, seed + place) for place, size in enumerate(sizes)]


def pooled_mean(
    values: Sequence[np.ndarray], bootstraps: Sequence[ProblemBootstrap], alike: Alike = "problems"
) -> Resampled:
    """Mean over problems; NaN without any.

    Args:
        values: `(P,)` of each set; NaN for problems without a value, which are left out.
        bootstraps: of each set.
        alike: with several sets, whether each problem or each set counts alike.
    """
    known = [np.isfinite(own) for own in values]
    sums = [np.where(there, own, 0.0)[:, None] for own, there in zip(values, known, strict=True)]
    counts = [there[:, None].astype(float) for there in known]
    if alike == "sets":
        means = [
            Resampled(_ratio(above.sum(), below.sum()), bootstrap.ratios(above, below)[:, 0])
            for above, below, bootstrap in zip(sums, counts, bootstraps, strict=True)
            if below.any()
        ]
        if not means:
            return Resampled(float("nan"), np.full(len(bootstraps[0].weights), np.nan))
        return Resampled(
            float(np.mean([mean.value for mean in means])), np.mean([mean.samples for mean in means], axis=0)
        )
    above = sum(bootstrap.weights @ own for bootstrap, own in zip(bootstraps, sums, strict=True))
    below = sum(bootstrap.weights @ own for bootstrap, own in zip(bootstraps, counts, strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        samples = (above / below)[:, 0]
    return Resampled(_ratio(sum(own.sum() for own in sums), sum(own.sum() for own in counts)), samples)


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below else float("nan")


def standard_error(values: Sequence[np.ndarray], alike: Alike = "problems") -> float:
    """Of `pooled_mean`, from the spread of values within each set; NaN where a set has a single value.

    Args:
        values: `(P,)` of each set, NaN for problems without a value.
        alike: as of `pooled_mean`.
    """
    there = [own for own in (own[np.isfinite(own)] for own in values) if len(own)]
    if any(len(own) < 2 for own in there) or not there:
        return float("nan")
    sizes = np.array([len(own) for own in there])
    shares = sizes / sizes.sum() if alike == "problems" else np.full(len(sizes), 1 / len(sizes))
    variances = np.array([own.var(ddof=1) for own in there])
    return float(np.sqrt((shares**2 * variances / sizes).sum()))
