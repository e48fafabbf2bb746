"""How many seeds show a given difference between two variants, from the spread that a pilot saw.

Differences are paired by seed and tested by Student's t, so the power is that of the noncentral t distribution. A
pilot of a few seeds knows the spread itself only roughly: the power is then averaged over the spreads that the pilot
leaves possible, s sqrt(df / chi2_df), as an expected power ("assurance", O'Hagan and others 2005).

Shape legend: V variants, S seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats

from tokenshift.analysis.comparison.coverage import ENOUGH_SEEDS
from tokenshift.analysis.statistics.paired import ALPHA, POWER, ROUNDING

MOST_SEEDS = 10_000
"""The number of seeds at which the search ends."""

SPREADS, DENOMINATORS = 60, 500
"""The number of quantiles of the spread, and of a test's estimate of it, over which the power is averaged."""


@dataclass(frozen=True)
class Spread:
    """The variation of the difference between two variants from seed to seed.

    Attributes:
        value: The standard deviation of the difference.
        degrees: Its degrees of freedom; None where it is taken as known.
        variants, seeds: The numbers of variants and seeds of the pilot; 0 where it is taken as known.
    """

    value: float
    degrees: int | None = None
    variants: int = 0
    seeds: int = 0


def pilot_spread(by_variant: Sequence[Mapping[str, float | None]]) -> Spread:
    """The spread of a pilot, from the residuals of the two-way analysis of variance of variants and seeds.

    The variance of a difference is twice the residual mean square, which is the mean of the variances of the
    differences between every two variants.

    Args:
        by_variant: For each variant, the outcome by seed; None where a model has none.

    Raises:
        ValueError: if fewer than two variants have the outcome, fewer than two seeds have it for all of them, or all
            differences are the same for every seed.
    """
    known = [{seed: value for seed, value in row.items() if value is not None} for row in by_variant]
    known = [row for row in known if row]
    if len(known) < 2:
        raise ValueError(f"{len(known)} of its variants has the outcome; a difference needs two")
    seeds = [seed for seed in known[0] if all(seed in row for row in known)]
    if len(seeds) < 2:
        raise ValueError(f"{len(seeds)} of its seeds has the outcome for every variant; a spread needs two")
    table = np.array([[row[seed] for seed in seeds] for row in known])  # (V, S)
    residuals = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    if np.abs(residuals).max() <= ROUNDING:
        raise ValueError("its differences are the same for every seed, which tells nothing of their spread")
    degrees = (len(known) - 1) * (len(seeds) - 1)
    return Spread(float(np.sqrt(2 * (residuals**2).sum() / degrees)), degrees, len(known), len(seeds))


def power(seeds: int, effect: float, spread: Spread, comparisons: int = 1) -> float:
    """The probability that the two-sided test finds a true difference.

    Args:
        seeds: The number of seeds of each variant, at least 2.
        effect: The true difference, in the spread's unit.
        spread: The spread of the differences, above 0.
        comparisons: The number of variants that are compared with the baseline: the test's level is that of the first
            step of Holm's method, 5 % over this number.
    """
    spreads = np.array([spread.value])
    if spread.degrees is not None:
        spreads = spread.value / _relative_spreads(spread.degrees, SPREADS)
    shift = abs(effect) * np.sqrt(seeds) / spreads[:, None]
    critical = stats.t.ppf(1 - ALPHA / comparisons / 2, seeds - 1)
    # the noncentral t as a mixture over its denominator, since its own tails are not finite in floating point
    reach = critical * _relative_spreads(seeds - 1, DENOMINATORS)
    return float((stats.norm.sf(reach - shift) + stats.norm.cdf(-reach - shift)).mean())


@cache
def _relative_spreads(degrees: int, count: int) -> np.ndarray:
    """Quantiles of an estimated standard deviation over the true one, `(count,)`."""
    return np.asarray(np.sqrt(stats.chi2.ppf((np.arange(count) + 0.5) / count, degrees) / degrees))


def seeds_needed(effect: float, spread: Spread, comparisons: int = 1) -> int | None:
    """The fewest seeds whose power is at least 80 %, at least 2.

    Args:
        effect: The true difference, in the spread's unit, not 0.
        spread: The spread of the differences.
        comparisons: As for `power`.

    Returns:
        None where `MOST_SEEDS` are not enough.
    """
    low, high = 1, 2
    while power(high, effect, spread, comparisons) < POWER:
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, effect, spread, comparisons) >= POWER else (middle, high)
    return high


def recommended_seeds(effect: float, spread: Spread, area: bool, comparisons: int = 1) -> int | None:
    """The fewest seeds that show a difference with a power of 80 % and whose intervals are not approximate.

    Args:
        effect, spread, comparisons: As for `seeds_needed`.
        area: Whether the outcome is an area under a learning curve, or the final accuracy.

    Returns:
        None where `MOST_SEEDS` are not enough.
    """
    seeds = seeds_needed(effect, spread, comparisons)
    if seeds is None:
        return None
    return max(seeds, ENOUGH_SEEDS[area])
