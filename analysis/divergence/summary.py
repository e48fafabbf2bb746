"""Mean, percentiles and shares of a divergence over tokens."""

import numpy as np

from tokenshift.analysis.thresholds import HIGH, NEAR_ZERO


def divergence_summary(values: np.ndarray) -> dict[str, float]:
    """Mean, percentiles and shares of per-token divergences `(N,)` in nats, N > 0.

    Shares are of the absolute value, since some estimators are signed.

    Returns:
        `mean`, `p50`, `p90`, `p95`, `p99` and `max` in nats; `frac_near_zero` and `frac_high`, shares of the tokens
        whose divergence is below 0.001 and above 0.1.
    """
    p50, p90, p95, p99, maximum = np.quantile(values, [0.5, 0.9, 0.95, 0.99, 1.0])
    size = np.abs(values)
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "p50": float(p50),
        "p90": float(p90),
        "p95": float(p95),
        "p99": float(p99),
        "max": float(maximum),
        "frac_near_zero": float((size < NEAR_ZERO).mean()),
        "frac_high": float((size > HIGH).mean()),
    }
