"""A ratio of sums over problems as a mean of values, one per problem, so that statistics of means apply to it."""

import numpy as np


def linearised(sums: np.ndarray, counts: np.ndarray) -> np.ndarray | None:
    """Values of problems `(P,)` whose mean is the ratio of the sums, and whose spread is that of the ratio.

    The ratio R = sum(s) / sum(c) changes with a problem as the mean of R + (s_p - R c_p) / mean(c) does, to first
    order.

    Args:
        sums, counts: `(P,)` each, the numerator's and the denominator's part of each problem.

    Returns:
        None for 0 / 0.
    """
    total = counts.sum()
    if not total:
        return None
    ratio = sums.sum() / total
    return np.asarray(ratio + (sums - ratio * counts) / counts.mean())
