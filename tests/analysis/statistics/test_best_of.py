"""The best of several candidates: exact cases, and how often a difference is seen where there is none."""

import numpy as np
import pytest

from tokenshift.analysis.statistics.best_of import best_of


def test_by_hand() -> None:
    """The largest |mean| / error of the flips of three problems is that of equal signs: q is the candidate's own."""
    found = best_of(np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]))
    assert (found.index, found.difference, found.candidates, found.problems) == (0, 2.0, 2, 3)
    assert (found.low, found.high) == pytest.approx((0.0, 4.0))
    certain = best_of(np.array([[0.5, -1.0]] * 4))
    assert (certain.index, certain.difference, certain.low, certain.high) == (0, 0.5, 0.5, 0.5)
    assert best_of(np.array([[1.0, 2.0]])).low is None
    for wrong in (np.zeros((0, 2)), np.zeros((3, 0)), np.array([[np.nan]])):
        with pytest.raises(ValueError, match=r"no candidate|not a finite"):
            best_of(wrong)


@pytest.mark.parametrize(("problems", "candidates", "share"), [(12, 1, 0.3), (40, 8, 0.1), (60, 8, 0.5)])
def test_no_difference_is_seldom_seen(problems: int, candidates: int, share: float) -> None:
    """Differences of verdicts, most of them 0, which candidates have partly in common. The best of 8 by its own error
    looks better than nothing far more often."""
    rng = np.random.default_rng(candidates)
    seen = naive = 0
    for _ in range(300):
        common = rng.choice([-1.0, 0.0, 1.0], (problems, 1), p=[share / 2, 1 - share, share / 2])
        apart = rng.choice([-1.0, 0.0, 1.0], (problems, candidates), p=[share / 2, 1 - share, share / 2])
        values = np.where(rng.random((problems, candidates)) < 0.3, common, apart)
        found = best_of(values, flips=400)
        assert found.low is not None
        seen += found.low > 0
        best = values[:, found.index]
        naive += best.mean() > 1.96 * max(best.std(ddof=1), 1e-9) / np.sqrt(problems)
    assert seen / 300 <= 0.05
    assert naive / 300 > 0.08 or candidates == 1


def test_the_interval_holds_the_largest_true_difference() -> None:
    rng = np.random.default_rng(3)
    truth = np.array([-0.2, 0.0, 0.1, 0.15])
    held = seen = 0
    for _ in range(300):
        found = best_of(truth + rng.normal(0, 0.3, (50, 1)) + rng.normal(0, 0.2, (50, 4)), flips=400)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.15 <= found.high
        seen += found.low > 0
    assert held / 300 >= 0.93
    assert seen / 300 > 0.6
