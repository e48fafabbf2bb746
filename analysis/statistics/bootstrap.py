"""Bootstrap intervals of ratios of sums, resampled by problem, since responses to one problem are not independent.

Shape legend: P problems, R resamples, B ratios.
"""

from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""Confidence level of every interval."""


class ProblemBootstrap:
    """Percentile intervals from resamples of P problems.

    Args:
        problems: The number of problems P.
        resamples: The number of resamples R.
        seed: The seed of the random resamples.

    Attributes:
        weights: `(R, P)` float32, how often each resample holds each problem. All statistics share them, so that
            differences can be taken resample by resample.
    """

    def __init__(self, problems: int, resamples: int = 1000, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.weights = rng.multinomial(problems, np.full(problems, 1 / max(1, problems)), resamples).astype(np.float32)

    def ratios(self, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """The ratio of the two sums over a resample's problems, for each resample.

        Args:
            sums: `(P, B)`, the numerator's part of each problem.
            counts: `(P, B)`, the denominator's part of each problem.

        Returns:
            `(R, B)`; NaN for 0 / 0.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return (self.weights @ sums) / (self.weights @ counts)


def interval(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % percentile interval of resampled values.

    Args:
        samples: `(R, B)`; NaN where a resample has no value.

    Returns:
        Lower and upper ends, `(B,)` each; NaN where no resample has a value.
    """
    tail = (1 - LEVEL) / 2
    if not samples.size:
        return np.full(samples.shape[1:], np.nan), np.full(samples.shape[1:], np.nan)
    empty = np.isnan(samples).all(axis=0)
    low, high = np.nanquantile(np.where(empty, 0.0, samples), [tail, 1 - tail], axis=0)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


@dataclass(frozen=True)
class Resampled:
    """A number with its value in each resample. Differences and quotients are taken resample by resample.

    Attributes:
        value: The number, from all problems.
        samples: `(R,)`, the number from each resample; NaN where it is not defined.
    """

    value: float
    samples: np.ndarray

    def __sub__(self, other: "Resampled") -> "Resampled":
        return Resampled(self.value - other.value, self.samples - other.samples)

    def __truediv__(self, other: "Resampled") -> "Resampled":
        with np.errstate(invalid="ignore", divide="ignore"):
            value = float(np.float64(self.value) / np.float64(other.value))
            return Resampled(value, self.samples / other.samples)

    @property
    def interval(self) -> dict[str, float] | None:
        """`value` with the ends `low` and `high` of its 95 % interval; None where one of the three is not defined."""
        low, high = interval(np.where(np.isfinite(self.samples), self.samples, np.nan)[:, None])
        if not np.isfinite([self.value, low[0], high[0]]).all():
            return None
        return {"value": self.value, "low": float(low[0]), "high": float(high[0])}
