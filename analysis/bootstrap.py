"""Bootstrap intervals of ratios of sums, resampled by problem: responses to one problem are not independent."""

from collections.abc import Sequence

import numpy as np

from tokenshift.analysis.trajectories import Trajectory

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


def accuracy(trajectories: Sequence[Trajectory], resamples: int = 1000, seed: int = 0) -> dict[str, float] | None:
    """Share of correct responses as `value`, `low`, `high`, and their number `n`; None where none was judged."""
    judged = [each for each in trajectories if each.correct is not None]
    if not judged:
        return None
    ids, problems = np.unique([each.problem_id for each in judged], return_inverse=True)
    correct = np.bincount(problems, [bool(each.correct) for each in judged])
    counts = np.bincount(problems)
    low, high = interval(ProblemBootstrap(len(ids), resamples, seed).ratios(correct[:, None], counts[:, None]))
    value = float(correct.sum() / counts.sum())
    return {"value": value, "low": float(low[0]), "high": float(high[0]), "n": len(judged)}
