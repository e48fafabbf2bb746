"""The largest of several mean differences from one reference, with an interval that knows it is the largest.

The best of C candidates looks better than it is. All C means are therefore bounded at once: with sign flips of whole
problems, which keep what the candidates have in common, q is the 95 % quantile of the largest of their |mean| / error,
and every candidate's true mean lies within q errors of its own (studentised max-T; Westfall and Young 1993). Under
differences that are symmetric about 0 the test that follows is exact at any number of problems, also where few of
them differ.

Shape legend: P problems, C candidates, R flips.
"""

from dataclasses import dataclass

import numpy as np

from tokenshift.analysis.statistics.bootstrap import LEVEL
from tokenshift.analysis.statistics.paired import ROUNDING


@dataclass(frozen=True)
class BestOf:
    """The largest of several mean differences.

    Attributes:
        index: The candidate whose mean is the largest; the first of equals.
        difference: The candidate's mean difference.
        low, high: The ends of the 95 % interval of the largest true mean; None with a single problem.
        candidates, problems: The numbers of candidates and problems.
    """

    index: int
    difference: float
    low: float | None
    high: float | None
    candidates: int
    problems: int


def best_of(differences: np.ndarray, flips: int = 2000, seed: int = 0) -> BestOf:
    """The largest mean over problems of the differences of several candidates from one reference.

    Args:
        differences: `(P, C)`, all finite.
        flips: The number R of random sign flips.
        seed: The seed of the flips.

    Raises:
        ValueError: If there is no candidate or no problem, or a value is not finite.
    """
    problems, candidates = differences.shape
    if not differences.size:
        raise ValueError("There is no candidate, or no problem.")
    if not np.isfinite(differences).all():
        raise ValueError("A difference is not a finite number; leave its problem or its candidate out.")
    means = differences.mean(axis=0)
    index = int(means.argmax())
    if problems < 2:
        return BestOf(index, float(means[index]), None, None, candidates, problems)
    errors = differences.std(axis=0, ddof=1) / np.sqrt(problems)  # (C,)
    spread = errors > ROUNDING  # a candidate without spread is known exactly
    reach = np.zeros(candidates)
    if spread.any():
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], (flips, problems))
        largest = np.abs(signs @ differences[:, spread] / problems / errors[spread]).max(axis=1)  # (R,)
        reach[spread] = float(np.quantile(largest, LEVEL, method="higher")) * errors[spread]
    low, high = (means - reach).max(), (means + reach).max()
    return BestOf(index, float(means[index]), float(low), float(high), candidates, problems)
