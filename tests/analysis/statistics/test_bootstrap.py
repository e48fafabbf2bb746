"""Resamples of problems, their intervals, and numbers with a value in each resample."""

import numpy as np
import pytest

from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap, Resampled, interval


def test_each_resample_holds_as_many_problems_and_ratios_are_of_its_sums() -> None:
    bootstrap = ProblemBootstrap(4, 50, seed=3)
    assert bootstrap.weights.shape == (50, 4)
    assert bootstrap.weights.dtype == np.float32
    assert (bootstrap.weights.sum(axis=1) == 4).all()
    sums, counts = np.array([[1.0], [2.0], [0.0], [5.0]]), np.array([[2.0], [2.0], [0.0], [5.0]])
    ratios = bootstrap.ratios(sums, counts)
    by_hand = [(weights @ sums[:, 0]) / (weights @ counts[:, 0]) for weights in bootstrap.weights]
    assert ratios[:, 0] == pytest.approx(np.array(by_hand), nan_ok=True)
    assert np.isnan(bootstrap.ratios(np.zeros((4, 1)), np.zeros((4, 1)))).all()
    assert np.array_equal(bootstrap.weights, ProblemBootstrap(4, 50, seed=3).weights)
    assert not np.array_equal(bootstrap.weights, ProblemBootstrap(4, 50, seed=4).weights)


def test_intervals_are_quantiles_of_the_resamples_that_have_a_value() -> None:
    samples = np.stack([np.arange(101.0), np.full(101, np.nan), np.arange(101.0)], axis=1)
    samples[:1, 2] = np.nan
    low, high = interval(samples)
    assert (low[0], high[0]) == pytest.approx((2.5, 97.5))
    assert np.isnan([low[1], high[1]]).all()
    assert (low[2], high[2]) == pytest.approx(np.quantile(np.arange(1.0, 101.0), [0.025, 0.975]))
    assert np.isnan(interval(np.zeros((0, 2)))[0]).tolist() == [True, True]


def test_differences_and_quotients_are_taken_resample_by_resample() -> None:
    one, other = Resampled(3.0, np.array([2.0, 4.0])), Resampled(2.0, np.array([1.0, 0.0]))
    assert ((one - other).value, (one - other).samples.tolist()) == (1.0, [1.0, 4.0])
    assert ((one / other).value, (one / other).samples.tolist()) == (1.5, [2.0, np.inf])
    assert (one / other).interval == {"value": 1.5, "low": 2.0, "high": 2.0}  # of the finite ones
    assert (one / Resampled(0.0, np.zeros(2))).interval is None
    entry = (one - other).interval
    assert entry is not None
    assert (entry["value"], entry["low"], entry["high"]) == pytest.approx((1.0, 1.075, 3.925))
