"""Means over the problems of one or several sets, with resamples by problem.

The sets are fixed and their problems are a sample, so problems are resampled within each set. Over several sets the
mean is either that over all problems (micro average) or that of the sets' means (macro average).

Shape legend: P problems of a set, R resamples.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap, Resampled

Alike = Literal["problems", "sets"]
"""The unit of equal weight in a mean over several sets: each problem (micro average), or each set (macro average)."""


def set_bootstraps(sizes: Sequence[int], resamples: int, seed: int = 0) -> list[ProblemBootstrap]:
    """Independent resamples of several sets.

    Args:
        sizes: The number of problems of each set.
        resamples: The number of resamples R.
        seed: The seed of the first set's resamples; the next set has the next seed.
    """
    return [ProblemBootstrap(size, resamples, seed + index) for index, size in enumerate(sizes)]


def pooled_mean(
    values: Sequence[np.ndarray], bootstraps: Sequence[ProblemBootstrap], alike: Alike = "problems"
) -> Resampled:
    """The mean over the problems of one or several sets; NaN where no problem has a value.

    Args:
        values: `(P,)` for each set; NaN for problems without a value, which are left out.
        bootstraps: The resamples of each set.
        alike: With several sets, whether to weight each problem equally, or each set (macro average).
    """
    known = [np.isfinite(of_set) for of_set in values]
    sums = [np.where(mask, of_set, 0.0)[:, None] for of_set, mask in zip(values, known, strict=True)]
    counts = [mask[:, None].astype(float) for mask in known]
    if alike == "sets":
        means = [
            Resampled(_ratio(total.sum(), count.sum()), bootstrap.ratios(total, count)[:, 0])
            for total, count, bootstrap in zip(sums, counts, bootstraps, strict=True)
            if count.any()
        ]
        if not means:
            return Resampled(float("nan"), np.full(len(bootstraps[0].weights), np.nan))
        return Resampled(
            float(np.mean([mean.value for mean in means])), np.mean([mean.samples for mean in means], axis=0)
        )
    totals = sum(bootstrap.weights @ total for bootstrap, total in zip(bootstraps, sums, strict=True))
    problems = sum(bootstrap.weights @ count for bootstrap, count in zip(bootstraps, counts, strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        samples = (totals / problems)[:, 0]
    return Resampled(_ratio(sum(total.sum() for total in sums), sum(count.sum() for count in counts)), samples)


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else float("nan")


def standard_error(values: Sequence[np.ndarray], alike: Alike = "problems") -> float:
    """The standard error of `pooled_mean`, from the spread of values within each set.

    Args:
        values: `(P,)` for each set; NaN for problems without a value.
        alike: As for `pooled_mean`.

    Returns:
        NaN where some set has a single value, or no set has any.
    """
    known = [finite for finite in (of_set[np.isfinite(of_set)] for of_set in values) if len(finite)]
    if any(len(finite) < 2 for finite in known) or not known:
        return float("nan")
    sizes = np.array([len(finite) for finite in known])
    shares = sizes / sizes.sum() if alike == "problems" else np.full(len(sizes), 1 / len(sizes))
    variances = np.array([finite.var(ddof=1) for finite in known])
    return float(np.sqrt((shares**2 * variances / sizes).sum()))
