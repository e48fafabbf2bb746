"""Differences over seeds and problems by hand, and how often their intervals hold the truth."""

import numpy as np
import pytest
from scipy import stats

from tokenshift.analysis.statistics.crossed_design import (
    CrossedDifference,
    crossed_difference,
    crossed_groups,
    seed_difference,
)

# means of the seeds 2, 4; of the problems 0, 2, 7; of all 3
HAND = np.array([[0.0, 1.0, 5.0], [0.0, 3.0, 9.0]])


def test_by_hand() -> None:
    found = crossed_difference([HAND])
    of_seeds = 3 * ((2 - 3) ** 2 + (4 - 3) ** 2) / 1  # 6
    of_problems = 2 * ((0 - 3) ** 2 + (2 - 3) ** 2 + (7 - 3) ** 2) / 2  # 26
    residuals = HAND - np.array([[0, 2, 7]]) - np.array([[2], [4]]) + 3  # 1 0 -1, -1 0 1
    of_error = (residuals**2).sum() / (1 * 2)  # 2
    assert (of_seeds, of_problems, of_error) == (6, 26, 2)
    variance = (6 + 26 - 2) / 6
    degrees = (6 + 26 - 2) ** 2 / (6**2 / 1 + 26**2 / 2 + 2**2 / 2)
    assert found.difference == pytest.approx(3)
    assert found.standard_error == pytest.approx(np.sqrt(variance))
    assert found.degrees == pytest.approx(degrees)
    reach = stats.t.ppf(0.975, degrees) * np.sqrt(variance)
    assert (found.low, found.high) == pytest.approx((3 - reach, 3 + reach))
    assert found.p_value == pytest.approx(2 * stats.t.sf(3 / np.sqrt(variance), degrees))
    assert found.detectable is not None
    shift = found.detectable / np.sqrt(variance)
    assert stats.nct.sf(stats.t.ppf(0.975, degrees), degrees, shift) == pytest.approx(0.8)
    assert (found.seeds, found.problems, found.floored) == (2, 3, False)
    turned = crossed_difference([-HAND])
    assert (turned.difference, turned.p_value, turned.low) == (-3, found.p_value, -found.high)  # type: ignore[operator]


def test_where_the_sum_is_smaller_than_the_error_the_error_is_used() -> None:
    differences = np.array([[1.0, -1.0, 1.0], [-1.0, 1.0, -0.9]])
    found = crossed_difference([differences])
    rows, columns = differences.mean(axis=1, keepdims=True), differences.mean(axis=0)
    error = ((differences - rows - columns + differences.mean()) ** 2).sum() / 2
    assert found.floored
    assert found.standard_error == pytest.approx(np.sqrt(error / 6))
    assert found.degrees == pytest.approx(2)


def test_several_sets_count_alike() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(3, 5))
    both = crossed_difference([one, one])
    assert both.difference == pytest.approx(one.mean())
    assert both.problems == 10
    small, large = rng.normal(size=(3, 4)), rng.normal(size=(3, 40)) + 1
    found = crossed_difference([small, large])
    assert found.difference == pytest.approx((small.mean() + large.mean()) / 2)
    # the same set in two halves has the spread between them no longer
    seeds = np.array([[0.0], [1.0]])
    split = crossed_difference([np.zeros((2, 3)) + seeds, np.ones((2, 3)) + seeds])
    assert split.standard_error == pytest.approx(np.sqrt(0.5 / 2))


def test_without_spread_or_too_few() -> None:
    single = crossed_difference([HAND[:1]])
    assert single == CrossedDifference(2.0, None, None, None, None, None, None, 1, 3)
    assert crossed_difference([HAND[:, :1]]).p_value is None
    assert crossed_difference([]).difference is None
    assert crossed_difference([np.zeros((2, 0))]).difference is None
    same = crossed_difference([np.zeros((2, 3))])
    assert (same.difference, same.low, same.high, same.p_value, same.detectable) == (0, 0, 0, 1, None)
    assert crossed_difference([np.ones((2, 3))]).p_value == 0
    with pytest.raises(ValueError, match="not a finite number"):
        crossed_difference([np.array([[np.nan, 1.0]])])
    with pytest.raises(ValueError, match=r"differences for \[2, 3\] seeds"):
        crossed_difference([np.zeros((2, 3)), np.zeros((3, 3))])


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    ("seed_sd", "problem_sd", "noise"), [(0, 0, 1), (0, 0.3, 1), (0.05, 0.3, 0.5), (0.2, 0.1, 0.5), (0.05, 0, 0.3)]
)
def test_intervals_hold_the_truth(seeds: int, seed_sd: float, problem_sd: float, noise: float) -> None:
    """500 trials have a standard error of 1 point; the intervals may be 3 points too narrow, and any too wide."""
    rng = np.random.default_rng(7)
    trials = 500
    held = 0
    for _ in range(trials):
        differences = 0.1 + rng.normal(0, noise, (seeds, 60))
        differences += rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, problem_sd, (1, 60))
        found = crossed_difference([differences])
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.1 <= found.high
    assert held / trials >= 0.92 - 0.02 * (seeds == 3)


def test_by_problem_alone_would_be_too_narrow() -> None:
    """With seeds that differ, an interval that resamples problems alone misses the truth most of the time."""
    rng = np.random.default_rng(3)
    crossed = naive = 0
    for _ in range(300):
        differences = rng.normal(0, 0.1, (4, 1)) + rng.normal(0, 0.1, (4, 200))
        found = crossed_difference([differences])
        assert found.high is not None
        assert found.low is not None
        crossed += found.low <= 0 <= found.high
        of_problems = differences.mean(axis=0)
        naive += bool(abs(of_problems.mean()) <= 1.97 * of_problems.std(ddof=1) / np.sqrt(200))
    assert crossed / 300 > 0.92
    assert naive / 300 < 0.5


def test_detectable_differences_are_found_four_times_in_five() -> None:
    rng = np.random.default_rng(5)
    noise = [
        rng.normal(0, 0.05, (5, 1)) + rng.normal(0, 0.2, (1, 60)) + rng.normal(0, 0.3, (5, 60)) for _ in range(400)
    ]
    detectable = [crossed_difference([own]).detectable for own in noise]
    median = np.median([value for value in detectable if value is not None])
    p_values = [crossed_difference([own + median]).p_value for own in noise]
    power = np.mean([value is not None and value <= 0.05 for value in p_values])
    assert power == pytest.approx(0.8, abs=0.06)


def test_differences_over_seeds_alone() -> None:
    values = np.array([0.1, 0.3, 0.2])
    found = seed_difference(values)
    expected = stats.ttest_1samp(values, 0)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert seed_difference(values[:1]).low is None
    assert seed_difference(values[:0]).difference is None


def test_groups_of_trainings_by_hand() -> None:
    first, second = HAND, np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [4.0, 0.0, 2.0]])
    found = crossed_groups(first, second)
    of_problems = first.mean(axis=0) - second.mean(axis=0)  # -2 1 5
    residuals = [group - group.mean(0) - group.mean(1, keepdims=True) + group.mean() for group in (first, second)]
    parts = [(of_problems.var(ddof=1) / 3, 2), (first.mean(1).var(ddof=1) / 2, 1), (second.mean(1).var(ddof=1) / 3, 2)]
    errors = [((residuals[0] ** 2).sum() / 2 / 6, 2), ((residuals[1] ** 2).sum() / 4 / 9, 4)]
    variance = sum(part for part, _ in parts) - sum(part for part, _ in errors)
    assert found.difference == pytest.approx(3 - second.mean())
    assert found.standard_error == pytest.approx(np.sqrt(variance))
    assert found.degrees == pytest.approx(variance**2 / sum(part**2 / freedom for part, freedom in parts + errors))
    assert (found.seeds, found.problems) == (2, 3)
    turned = crossed_groups(second, first)
    assert (turned.difference, turned.low) == pytest.approx((-3 + second.mean(), -found.high))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("sizes", "sds", "problem_sd"), [((3, 3), (0.1, 0.1), 0.2), ((3, 6), (0.2, 0.02), 0.0), ((4, 3), (0.0, 0.05), 0.4)]
)
def test_intervals_of_groups_hold_the_truth(
    sizes: tuple[int, int], sds: tuple[float, float], problem_sd: float
) -> None:
    rng = np.random.default_rng(11)
    held = 0
    for _ in range(500):
        problems = rng.normal(0, 1, 60)  # shared, and without an effect on the difference
        groups = [
            problems + rng.normal(0, problem_sd, 60) + rng.normal(0, sd, (size, 1)) + rng.normal(0, 0.5, (size, 60))
            for size, sd in zip(sizes, sds, strict=True)
        ]
        found = crossed_groups(groups[0] + 0.1, groups[1])
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.1 <= found.high
    assert held / 500 >= 0.91


def test_groups_that_cannot_be_compared() -> None:
    assert crossed_groups(HAND[:1], HAND).low is None
    assert crossed_groups(HAND[:1], HAND).difference == pytest.approx(-1)
    assert crossed_groups(HAND, HAND + 1).difference == pytest.approx(-1)
    with pytest.raises(ValueError, match="3 and 2 problems"):
        crossed_groups(HAND, HAND[:, :2])
    with pytest.raises(ValueError, match="not a finite number"):
        crossed_groups(HAND, np.full((2, 3), np.nan))
