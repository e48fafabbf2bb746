"""Mean, percentiles and shares of a divergence over tokens."""

import numpy as np

from tokenshift.analysis.thresholds import HIGH, NEAR_ZERO

LEVELS = [0.5, 0.9, 0.95, 0.99, 1.0]


def divergence_summary(values: np.ndarray, counts: np.ndarray | None = None) -> dict[str, float]:
    """Mean, percentiles and shares of per-token divergences `(N,)` in nats, N > 0.

    Shares are of the absolute value, since some estimators are signed.

    Args:
        values: the divergences; ascending where they are counted.
        counts: how often each occurs, `(N,)`; once each when None.

    Returns:
        `mean`, `p50`, `p90`, `p95`, `p99` and `max` in nats; `frac_near_zero` and `frac_high`, shares of the tokens
        whose divergence is below 0.001 and above 0.1.
    """
    quantiles = np.quantile(values, LEVELS) if counts is None else counted_quantiles(values, counts, LEVELS)
    size = np.abs(values)
    return {
        "mean": mean(values, counts),
        **{name: float(value) for name, value in zip(("p50", "p90", "p95", "p99", "max"), quantiles, strict=True)},
        "frac_near_zero": mean(size < NEAR_ZERO, counts),
        "frac_high": mean(size > HIGH, counts),
    }


def mean(values: np.ndarray, counts: np.ndarray | None = None) -> float:
    """Mean of values `(N,)`, summed in float64, each of which occurs so many times as `counts` `(N,)` say."""
    if counts is None:
        return float(values.mean(dtype=np.float64))
    return float(np.average(values.astype(np.float64), weights=counts))


def counted_quantiles(values: np.ndarray, counts: np.ndarray, levels: list[float]) -> np.ndarray:
    """Quantiles of counted values, as `numpy.quantile` takes them of all values one by one.

    Args:
        values: `(n,)`, ascending.
        counts: how often each occurs, `(n,)`.
        levels: between 0 and 1.
    """
    ends = counts.cumsum()  # one past the last index of each value among all
    position = np.asarray(levels) * (ends[-1] - 1)
    below = np.floor(position)
    low, high = (values[np.searchsorted(ends, index, side="right")] for index in (below, np.ceil(position)))
    return low + (position - below) * (high - low)
