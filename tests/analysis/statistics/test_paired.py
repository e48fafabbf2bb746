"""Pairs of policies by hand, by enumeration of every resample, and by simulation."""

from itertools import product

import numpy as np
import pytest
from helpers.binomial_accuracies import accuracies
from hypothesis import given
from hypothesis import strategies as st

from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap
from tokenshift.analysis.statistics.paired import (
    centred_p_value,
    detectable_difference,
    holm,
    paired_comparison,
)
from tokenshift.analysis.statistics.pooled_means import set_bootstraps


def test_by_hand() -> None:
    values, reference = [np.array([1.0, 0.5, 1.0, np.nan])], [np.array([0.5, 0.5, 0.25, 1.0])]
    found = paired_comparison(values, reference, set_bootstraps([4], 2000))
    assert found.problems == 3
    assert found.difference == pytest.approx((0.5 + 0 + 0.75) / 3)
    assert found.standard_error == pytest.approx(np.std([0.5, 0, 0.75], ddof=1) / np.sqrt(3))
    assert found.detectable == pytest.approx((1.959964 + 0.841621) * found.standard_error, abs=1e-5)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.difference < found.high
    other = paired_comparison(reference, values, set_bootstraps([4], 2000))
    assert (other.difference, other.low, other.p_value) == (-found.difference, -found.high, found.p_value)


def test_interval_and_p_value_are_those_of_every_resample() -> None:
    differences = np.array([0.5, 0.0, 0.75, -0.25, 0.125])
    every = np.array([differences[list(chosen)].mean() for chosen in product(range(5), repeat=5)])
    mean = differences.mean()
    exact = np.mean(np.abs(every - mean) >= mean - 1e-9)
    found = paired_comparison([differences], [np.zeros(5)], set_bootstraps([5], 20_000))
    assert found.p_value == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000))
    assert (found.low, found.high) == pytest.approx(np.quantile(every, [0.025, 0.975]), abs=0.03)
    assert centred_p_value(mean, every) == (1 + exact * len(every)) / (1 + len(every))


def test_nothing_to_compare() -> None:
    same = paired_comparison([np.array([0.5, 1.0])], [np.array([0.5, 1.0])], set_bootstraps([2], 100))
    assert (same.difference, same.low, same.high, same.p_value, same.detectable) == (0, 0, 0, 1, None)
    one = paired_comparison([np.array([0.5])], [np.array([1.0])], set_bootstraps([1], 100))
    assert (one.difference, one.low, one.p_value, one.problems) == (-0.5, None, None, 1)
    none = paired_comparison([np.array([np.nan])], [np.array([1.0])], set_bootstraps([1], 100))
    assert (none.difference, none.problems) == (None, 0)
    with pytest.raises(ValueError, match="values for \\[2\\] and \\[1\\] problems"):
        paired_comparison([np.zeros(2)], [np.zeros(1)], set_bootstraps([2], 100))


@pytest.mark.parametrize("moved", [False, True])
def test_tests_keep_their_level_and_power_by_simulation(moved: bool) -> None:
    """Without a difference 5 % are significant; with the difference that is said to be detectable, 80 %."""
    rng, trials, problems = np.random.default_rng(1), 500, 100
    rates = rng.beta(2, 2, 100_000) * 0.8
    many = accuracies(rng, rates) - accuracies(rng, rates)
    shift = detectable_difference(many.std() / np.sqrt(problems)) if moved else 0.0
    significant = covered = 0
    sizes = []
    for trial in range(trials):
        own = rng.choice(rates, problems)
        values, reference = accuracies(rng, own + shift), accuracies(rng, own)
        found = paired_comparison([values], [reference], [ProblemBootstrap(problems, 400, trial)])
        assert found.p_value is not None
        assert found.low is not None
        assert found.high is not None
        significant += found.p_value <= 0.05
        covered += found.low <= shift <= found.high
        sizes.append(found.detectable)
    assert 0.92 <= covered / trials <= 0.98
    if moved:
        assert 0.74 <= significant / trials <= 0.86
        assert np.mean(sizes) == pytest.approx(shift, rel=0.05)
    else:
        assert 0.025 <= significant / trials <= 0.08


def test_holm_by_hand() -> None:
    # 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1, which may not lie below the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5, 0.9]) == pytest.approx([1, 1, 1])
    assert holm([0.02]) == pytest.approx([0.02])
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([]).tolist() == []
    for wrong in ([0.1, 1.2], [float("nan")]):
        with pytest.raises(ValueError, match="p-values lie in"):
            holm(wrong)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.3))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float], level: float) -> None:
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    rejected = set()
    for step, place in enumerate(order):
        if p_values[place] * (len(p_values) - step) > level:
            break
        rejected.add(place)
    assert set(np.flatnonzero(holm(p_values) <= level)) == rejected
