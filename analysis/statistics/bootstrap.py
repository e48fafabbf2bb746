"""Bootstrap intervals of ratios of sums, resampled by problem: responses to one problem are not independent."""

from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


class ProblemBootstrap:
    """Percentile intervals from resamples of P problems.

    Args:
        problems: P.
        resamples: R.
        seed: of the resamples.

    Attributes:
        weights: `(R, P)` float32, how often each resample holds each problem. All statistics share them, so that
            differences can be taken resample by resample.
    """

    def __init__(self, problems: int, resamples: int = 1000, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.weights = rng.multinomial(problems, np.full(problems, 1 / max(1, problems)), resamples).astype(np.float32)

    def ratios(self, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Resampled sum of sums over sum of counts, `(R, B)`, from those of each problem `(P, B)`; NaN for 0 / 0."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return (self.weights @ sums) / (self.weights @ counts)


def interval(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end `(B,)` of the 95 % interval of resampled values `(R, B)`; NaN where all are."""
    tail = (1 - LEVEL) / 2
    if not samples.size:
        return np.full(samples.shape[1:], np.nan), np.full(samples.shape[1:], np.nan)
    empty = np.isnan(samples).all(axis=0)
    low, high = np.nanquantile(np.where(empty, 0.0, samples), [tail, 1 - tail], axis=0)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


@dataclass(frozen=True)
class Resampled:
    """A number, and what it is in each resample `(R,)`; NaN where it is not defined."""

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
        """`value`, `low` and `high`; None where there is no value."""
        low, high = interval(np.where(np.isfinite(self.samples), self.samples, np.nan)[:, None])
        if not np.isfinite([self.value, low[0], high[0]]).all():
            return None
        return {"value": self.value, "low": float(low[0]), "high": float(high[0])}
