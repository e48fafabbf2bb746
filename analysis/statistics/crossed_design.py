"""Whether two ways of training differ: the same seeds both ways, all models on the same problems.

The differences d of a seed and a problem form a crossed design without replication, with both seeds and problems a
sample: d = mean + seed + problem + error. With the mean squares of its two-way analysis of variance the variance of
the mean is (MS_seed + MS_problem - MS_error) / (S P) (Cornfield and Tukey 1956), its degrees of freedom are
Satterthwaite's (1946), and intervals are Student's t. So they speak of other seeds and of other problems. Where the
sum of mean squares lies below MS_error, which it does not in expectation, MS_error takes its place.

Over several sets the mean is that of the sets' means, each alike. The sets are fixed and their problems a sample, so
the parts of problems and error are taken within each set, and that of seeds from the seeds' means over all sets.

Simulated with 30 and 200 problems and mixes of the three parts, 1000 trials each, 95 % intervals held the mean in 94
to 97 % of trials with 5 seeds, 92 to 97 % with 3, and 87 to 98 % with 2, where the part of seeds has one degree of
freedom.

Shape legend: S seeds, P problems of a set.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from tokenshift.analysis.statistics.bootstrap import LEVEL
from tokenshift.analysis.statistics.paired import ALPHA, POWER, ROUNDING


@dataclass(frozen=True)
class CrossedDifference:
    """A mean difference over seeds and problems.

    Attributes:
        difference: the mean; None without a seed or problem.
        low, high: ends of its 95 % interval.
        p_value: of no difference, two-sided; not corrected for other comparisons.
        standard_error: of the difference.
        degrees: of freedom.
        detectable: the smallest true difference that this design shows with a power of 80 % at a level of 5 %.
        seeds, problems: how many.
        floored: whether MS_error took the place of a smaller sum of mean squares.

    All from `low` to `detectable` are None with a single seed, or a single problem in a set: nothing tells then how
    much another would change. Where no difference differs from any other there is no spread: `degrees` and
    `detectable` are None, and `p_value` is 1 for a difference of 0 and else 0.
    """

    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    standard_error: float | None
    degrees: float | None
    detectable: float | None
    seeds: int
    problems: int
    floored: bool = False


def crossed_difference(differences: Sequence[np.ndarray]) -> CrossedDifference:
    """The mean of differences over seeds and problems, for other seeds and other problems of the same kind.

    Args:
        differences: `(S, P)` of each set, all finite, with the same seeds in the same order.

    Raises:
        ValueError: if the sets have not the same number of seeds, or a value is not finite.
    """
    sizes = {len(own) for own in differences}
    if len(sizes) > 1:
        raise ValueError(f"The sets have differences for {sorted(sizes)} seeds; each must have all of them.")
    if not all(np.isfinite(own).all() for own in differences):
        raise ValueError("A difference is not a finite number; leave its problem or its seed out.")
    seeds, problems = max(sizes, default=0), sum(own.shape[1] for own in differences)
    if not seeds or not all(own.size for own in differences):
        return CrossedDifference(None, None, None, None, None, None, None, seeds, problems)
    weight = 1 / len(differences)
    of_seeds = weight * sum(own.mean(axis=1) for own in differences)  # (S,)
    mean = float(of_seeds.mean())
    if seeds < 2 or any(own.shape[1] < 2 for own in differences):
        return CrossedDifference(mean, None, None, None, None, None, None, seeds, problems)

    # mean squares over S P, the parts that each adds to the variance of the mean, and their degrees of freedom
    parts = [(float(of_seeds.var(ddof=1)) / seeds, seeds - 1.0)]
    errors = []
    for own in differences:
        count = own.shape[1]
        of_problems = own.mean(axis=0)  # (P,)
        residuals = own - of_problems - own.mean(axis=1, keepdims=True) + own.mean()
        degrees = (seeds - 1.0) * (count - 1.0)
        parts.append((weight**2 * float(of_problems.var(ddof=1)) / count, count - 1.0))
        errors.append((weight**2 * float((residuals**2).sum()) / degrees / (seeds * count), degrees))
    error = sum(part for part, _ in errors)
    variance = sum(part for part, _ in parts) - error
    floored = variance < error
    if floored:
        variance, parts = error, []
    spread = sum(part**2 / own for part, own in [*parts, *errors])
    degrees = variance**2 / spread if spread else 0.0
    return _student(mean, variance, degrees, seeds, problems, floored)


def seed_difference(differences: np.ndarray) -> CrossedDifference:
    """The mean of differences `(S,)` of a number that each trained model has one of, for other seeds.

    Raises:
        ValueError: if a value is not finite.
    """
    if not np.isfinite(differences).all():
        raise ValueError("A difference is not a finite number; leave its seed out.")
    seeds = len(differences)
    if seeds < 2:
        mean = float(differences[0]) if seeds else None
        return CrossedDifference(mean, None, None, None, None, None, None, seeds, 0)
    variance = float(differences.var(ddof=1)) / seeds
    return _student(float(differences.mean()), variance, seeds - 1.0, seeds, 0)


def _student(
    mean: float, variance: float, degrees: float, seeds: int, problems: int, floored: bool = False
) -> CrossedDifference:
    """Interval, p-value and power of Student's t.

    Args:
        mean: the difference.
        variance: of it.
        degrees: of freedom of the variance.
        seeds, problems, floored: as in the result.
    """
    if variance <= ROUNDING**2:
        return CrossedDifference(mean, mean, mean, float(abs(mean) <= ROUNDING), 0.0, None, None, seeds, problems)
    error = float(np.sqrt(variance))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * error
    return CrossedDifference(
        mean,
        mean - reach,
        mean + reach,
        float(2 * stats.t.sf(abs(mean) / error, degrees)),
        error,
        degrees,
        _detectable(degrees) * error,
        seeds,
        problems,
        floored,
    )


def _detectable(degrees: float) -> float:
    """True difference, in standard errors, that a t test finds with the power: by the noncentral t distribution."""
    critical = float(stats.t.ppf(1 - ALPHA / 2, degrees))

    def power(shift: float) -> float:
        return float(stats.nct.sf(critical, degrees, shift)) - POWER

    high = critical
    while power(high) < 0:
        high *= 2
    return float(brentq(power, 0.0, high))
