"""Differences between two ways of training, with seeds and problems as crossed random effects.

Both ways are trained with the same seeds, and all models answer the same problems. The differences d of a seed and a
problem form a crossed design without replication, in which both seeds and problems are a sample: d = mean + seed +
problem + error. With the mean squares of its two-way analysis of variance, the variance of the mean is
(MS_seed + MS_problem - MS_error) / (S P) (Cornfield and Tukey 1956), its degrees of freedom are Satterthwaite's
(1946), and intervals are Student's t. The intervals therefore speak of other seeds and of other problems. Where the
sum of mean squares is below MS_error, which it is not in expectation, MS_error takes its place.

Over several sets the mean is the macro average: that of the sets' means, each with the same weight. The sets are fixed
and their problems a sample, so the variance components of problems and error are taken within each set, and that of
seeds from the seeds' means over all sets.

Simulated with 30 and 200 problems and mixes of the three components, 1000 trials each, 95 % intervals held the mean in
94 to 97 % of trials with 5 seeds, 92 to 97 % with 3, and 87 to 98 % with 2, where the component of seeds has one
degree of freedom.

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
        difference: The mean difference; None without a seed or a problem.
        low, high: The ends of its 95 % interval.
        p_value: Two-sided p-value of no difference; not corrected for other comparisons.
        standard_error: The standard error of the difference.
        degrees: The degrees of freedom of the standard error.
        detectable: The minimum detectable difference: the smallest true difference that a test at a level of 5 % finds
            with a power of 80 % in this design.
        seeds, problems: The numbers of seeds and problems.
        floored: Whether MS_error took the place of a smaller sum of mean squares.

    All from `low` to `detectable` are None with a single seed, or a single problem in a set: the data do not say then
    how much another one would change. Where all differences are equal there is no spread: `degrees` and `detectable`
    are None, and `p_value` is 1 for a difference of 0 and otherwise 0.
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
    """The mean difference over seeds and problems, with an interval for other seeds and problems of the same kind.

    Args:
        differences: `(S, P)` for each set, all finite, with the same seeds in the same order.

    Raises:
        ValueError: if the sets do not have the same number of seeds, or a value is not finite.
    """
    sizes = {len(of_set) for of_set in differences}
    if len(sizes) > 1:
        raise ValueError(f"The sets have differences for {sorted(sizes)} seeds; each must have all of them.")
    if not all(np.isfinite(of_set).all() for of_set in differences):
        raise ValueError("A difference is not a finite number; leave its problem or its seed out.")
    seeds, problems = max(sizes, default=0), sum(of_set.shape[1] for of_set in differences)
    if not seeds or not all(of_set.size for of_set in differences):
        return CrossedDifference(None, None, None, None, None, None, None, seeds, problems)
    weight = 1 / len(differences)
    seed_means = weight * sum(of_set.mean(axis=1) for of_set in differences)  # (S,)
    mean = float(seed_means.mean())
    if seeds < 2 or any(of_set.shape[1] < 2 for of_set in differences):
        return CrossedDifference(mean, None, None, None, None, None, None, seeds, problems)

    # Each component is a mean square over S P, what it adds to the variance of the mean, with its degrees of freedom.
    components = [(float(seed_means.var(ddof=1)) / seeds, seeds - 1.0)]
    errors = []
    for of_set in differences:
        count = of_set.shape[1]
        problem_means = of_set.mean(axis=0)  # (P,)
        residuals = of_set - problem_means - of_set.mean(axis=1, keepdims=True) + of_set.mean()
        degrees = (seeds - 1.0) * (count - 1.0)
        components.append((weight**2 * float(problem_means.var(ddof=1)) / count, count - 1.0))
        errors.append((weight**2 * float((residuals**2).sum()) / degrees / (seeds * count), degrees))
    return _student(mean, *_satterthwaite(components, errors), seeds, problems)


def crossed_groups(first: np.ndarray, second: np.ndarray) -> CrossedDifference:
    """The mean of one group of trainings less that of another, with an interval for other trainings and problems.

    The trainings of the two groups are not pairs, while both groups answer the same problems. Trainings add their
    variance within each group to that of the difference, problems that of their differences between the groups' means.

    Args:
        first: `(S, P)`, all finite.
        second: `(S', P)`, all finite, of the same problems in the same order.

    Returns:
        The difference, whose `seeds` is the number of trainings of the smaller group; without an interval where that
        is 1.

    Raises:
        ValueError: if the groups do not have the same number of problems, or a value is not finite.
    """
    groups = (first, second)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"The groups have values for {first.shape[1]} and {second.shape[1]} problems; give the same.")
    if not all(np.isfinite(group).all() for group in groups):
        raise ValueError("A value is not a finite number; leave its problem or its training out.")
    seeds, problems = min(len(first), len(second)), first.shape[1]
    if not seeds or not problems:
        return CrossedDifference(None, None, None, None, None, None, None, seeds, problems)
    mean = float(first.mean() - second.mean())
    if seeds < 2 or problems < 2:
        return CrossedDifference(mean, None, None, None, None, None, None, seeds, problems)
    by_problem = first.mean(axis=0) - second.mean(axis=0)  # (P,)
    components = [(float(by_problem.var(ddof=1)) / problems, problems - 1.0)]
    errors = []
    for group in groups:
        count = len(group)
        residuals = group - group.mean(axis=0) - group.mean(axis=1, keepdims=True) + group.mean()
        degrees = (count - 1.0) * (problems - 1.0)
        components.append((float(group.mean(axis=1).var(ddof=1)) / count, count - 1.0))
        errors.append((float((residuals**2).sum()) / degrees / (count * problems), degrees))
    return _student(mean, *_satterthwaite(components, errors), seeds, problems)


def seed_difference(differences: np.ndarray) -> CrossedDifference:
    """The mean difference over seeds of a number that each trained model has one of, with an interval for other seeds.

    Args:
        differences: `(S,)`, one difference per seed.

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
    return _student(float(differences.mean()), variance, seeds - 1.0, False, seeds, 0)


Component = tuple[float, float]
"""The part of a mean's variance that a mean square estimates, and its degrees of freedom."""


def _satterthwaite(components: Sequence[Component], errors: Sequence[Component]) -> tuple[float, float, bool]:
    """The variance of a mean, its degrees of freedom, and whether that of the errors alone took its place.

    Args:
        components: The components of seeds and of problems, each of which holds the errors' once.
        errors: The components of the errors.
    """
    error = sum(component for component, _ in errors)
    variance = sum(component for component, _ in components) - error
    floored = variance < error
    if floored:
        variance, components = error, []
    spread = sum(component**2 / freedom for component, freedom in [*components, *errors])
    return variance, variance**2 / spread if spread else 0.0, floored


def _student(
    mean: float, variance: float, degrees: float, floored: bool, seeds: int, problems: int
) -> CrossedDifference:
    """The interval, p-value and minimum detectable difference of Student's t.

    Args:
        mean: The difference.
        variance: The variance of the difference.
        degrees: The degrees of freedom of the variance.
        floored, seeds, problems: As in the result.
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
    """The true difference, in standard errors, that a t test at level `ALPHA` finds with a power of `POWER`, by the
    noncentral t distribution."""
    critical = float(stats.t.ppf(1 - ALPHA / 2, degrees))

    def power(shift: float) -> float:
        return float(stats.nct.sf(critical, degrees, shift)) - POWER

    high = critical
    while power(high) < 0:
        high *= 2
    return float(brentq(power, 0.0, high))
