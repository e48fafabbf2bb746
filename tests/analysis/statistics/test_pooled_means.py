"""Means over problems and over sets, by hand and by simulation."""

import numpy as np
import pytest
from helpers.binomial_accuracies import accuracies

from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap, interval
from tokenshift.analysis.statistics.pooled_means import pooled_mean, set_bootstraps, standard_error


def test_several_sets_pooled_by_problems_or_by_sets() -> None:
    sets = [np.array([1.0, 0.0, 1.0, 1.0]), np.array([0.0, 0.5])]
    bootstraps = set_bootstraps([4, 2], 4000)
    assert not np.array_equal(set_bootstraps([4, 4], 9)[0].weights, set_bootstraps([4, 4], 9)[1].weights)
    by_problem, by_set = pooled_mean(sets, bootstraps), pooled_mean(sets, bootstraps, "sets")
    assert by_problem.value == pytest.approx(3.5 / 6)
    assert by_set.value == pytest.approx((0.75 + 0.25) / 2)
    variances = [own.var(ddof=1) / len(own) for own in sets]
    assert standard_error(sets) == pytest.approx(np.sqrt((4 / 6) ** 2 * variances[0] + (2 / 6) ** 2 * variances[1]))
    assert standard_error(sets, "sets") == pytest.approx(np.sqrt(sum(variances)) / 2)
    plain = [own.var() / len(own) for own in sets]  # resamples spread as the plain variance does
    assert by_set.samples.std() == pytest.approx(np.sqrt(sum(plain)) / 2, rel=0.05)
    assert by_problem.samples.std() == pytest.approx(np.sqrt(4 / 9 * plain[0] + plain[1] / 9), rel=0.05)
    empty = pooled_mean([np.array([np.nan]), np.array([1.0])], set_bootstraps([1, 1], 5), "sets")
    assert (empty.value, empty.samples.tolist()) == (1.0, [1.0] * 5)
    assert np.isnan(pooled_mean([np.array([np.nan])], set_bootstraps([1], 5)).value)


def test_intervals_cover_by_simulation() -> None:
    """Intervals of the mean accuracy over problems whose rates differ, 100 problems."""
    rng, trials = np.random.default_rng(0), 500
    covered = 0
    for trial in range(trials):
        values = accuracies(rng, rng.beta(0.6, 0.4, 100))
        low, high = interval(pooled_mean([values], [ProblemBootstrap(100, 400, trial)]).samples[:, None])
        covered += low[0] <= 0.6 <= high[0]
    assert 0.92 <= covered / trials <= 0.98
