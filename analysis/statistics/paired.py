"""Paired comparison of two policies on the same problems, and Holm's correction for several comparisons.

Both policies answered the same problems, so the test looks at their differences problem by problem. Intervals are
percentile bootstrap intervals, resampled by problem. With few problems they are too narrow: simulated with 8 responses
per problem and a mean accuracy of 0.1, nearly all of it in few problems, 95 % intervals held the mean in 84 % of 1000
trials at 10 problems, 92 % at 30, and 95 % at 100 and 300.

Shape legend: P problems of a set, R resamples, M hypotheses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap, interval
from tokenshift.analysis.statistics.pooled_means import Alike, pooled_mean, standard_error

ALPHA, POWER = 0.05, 0.8
"""Significance level and power used for the minimum detectable difference."""

ROUNDING = 1e-12
"""Two differences that are closer than this, relative to 1, count as equal."""


@dataclass(frozen=True)
class PairedComparison:
    """A policy's mean minus a reference's, over the problems for which both have a value.

    Attributes:
        difference: The difference of the means.
        low, high: The ends of its 95 % interval.
        p_value: Two-sided p-value of no difference; not corrected for other comparisons, see `holm`.
        standard_error: The standard error of the difference.
        detectable: The minimum detectable difference: the smallest true difference that a test at a level of 5 % finds
            with a power of 80 % on this many problems.
        problems: The number of problems.

    All but `problems` are None where they are not defined: without problems, or, for all that needs a spread, with a
    single problem in a set. Where no problem differs there is no spread either: `detectable` is None, and `p_value`
    is 1.
    """

    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    standard_error: float | None
    detectable: float | None
    problems: int


def paired_comparison(
    values: Sequence[np.ndarray],
    reference: Sequence[np.ndarray],
    bootstraps: Sequence[ProblemBootstrap],
    alike: Alike = "problems",
) -> PairedComparison:
    """Compare two policies over the problems of one or several sets.

    The p-value is the paired bootstrap's under the centred null: the resampled differences, shifted to a mean of 0,
    lie as far from 0 as the difference does in a share (b + 1) / (R + 1) of cases (Davison and Hinkley 1997,
    sections 4.4 and 4.2.3).

    Args:
        values: `(P,)` for each set, one value per problem, such as the mean of the verdicts on its responses; NaN for
            a problem without a value.
        reference: The same for the other policy, with the problems in the same order.
        bootstraps: The resamples of each set, from `set_bootstraps`.
        alike: With several sets, whether to weight each problem equally, or each set (macro average).

    Raises:
        ValueError: if the two policies do not have the same number of problems in each set.
    """
    sizes = [len(of_set) for of_set in values], [len(of_set) for of_set in reference]
    if sizes[0] != sizes[1]:
        raise ValueError(f"The policies have values for {sizes[0]} and {sizes[1]} problems, which are not pairs.")
    differences = [of_policy - of_reference for of_policy, of_reference in zip(values, reference, strict=True)]
    problems = int(sum(np.isfinite(of_set).sum() for of_set in differences))
    mean = pooled_mean(differences, bootstraps, alike)
    error = standard_error(differences, alike)
    if not np.isfinite(error):
        return PairedComparison(mean.value if problems else None, None, None, None, None, None, problems)
    low, high = interval(mean.samples[:, None])
    return PairedComparison(
        mean.value,
        float(low[0]),
        float(high[0]),
        centred_p_value(mean.value, mean.samples),
        error,
        detectable_difference(error) if error > ROUNDING else None,
        problems,
    )


def centred_p_value(value: float, samples: np.ndarray) -> float:
    """The two-sided bootstrap p-value of a true value of 0, at least 1 / (R + 1).

    Args:
        value: The observed value.
        samples: `(R,)`, the value in each resample; NaN, in resamples without any value, counts as extreme.
    """
    within = np.abs(samples - value) < abs(value) - ROUNDING
    return float((1 + (~within).sum()) / (1 + len(samples)))


def detectable_difference(standard_error: float, alpha: float = ALPHA, power: float = POWER) -> float:
    """The minimum detectable difference: the smallest true difference that a two-sided z test finds with a power.

    It is (z_(1 - alpha/2) + z_power) standard errors, 2.8 of them by default.

    Args:
        standard_error: The standard error of the difference.
        alpha: The significance level of the test.
        power: The probability with which the test finds the difference.
    """
    return float((stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)) * standard_error)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P-values adjusted for several comparisons by Holm's step-down method (Holm 1979).

    The chance that any true null hypothesis has an adjusted p-value of at most 0.05 is at most 5 %, however the tests
    depend on one another.

    Args:
        p_values: The p-values of M hypotheses.

    Returns:
        `(M,)`, the adjusted p-values in the same order.

    Raises:
        ValueError: if a value is NaN or outside [0, 1].
    """
    p = np.asarray(p_values, dtype=float)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values lie in [0, 1]; given were {', '.join(f'{value:g}' for value in p)}.")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted
