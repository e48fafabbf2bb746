"""Estimators against every draw that could have been made."""

from collections import Counter
from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from tokenshift.analysis.evaluation.estimators import majority_at_k, mean_at_k, pass_at_k

ANSWERS = st.one_of(st.none(), st.integers(0, 3))


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_and_mean_by_enumeration(n: int) -> None:
    for k in range(1, n + 1):
        draws = list(combinations(range(n), k))
        for c in range(n + 1):
            correct = [place < c for place in range(n)]
            passed = sum(any(correct[place] for place in draw) for draw in draws) / len(draws)
            mean = sum(sum(correct[place] for place in draw) / k for draw in draws) / len(draws)
            assert pass_at_k(np.array([n]), np.array([c]), k)[0] == pytest.approx(passed, abs=1e-15)
            assert mean_at_k(np.array([n]), np.array([c]))[0] == pytest.approx(mean, abs=1e-15)


@given(st.integers(1, 3000), st.data())
def test_pass_against_exact_fractions_where_binomials_overflow(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    exact = 1 - Fraction(comb(n - c, k), comb(n, k))
    assert pass_at_k(np.array([n]), np.array([c]), k)[0] == pytest.approx(float(exact), abs=1e-12)


def test_pass_is_unbiased() -> None:
    """Over binomial numbers of correct responses its mean is 1 - (1 - p)^k, where 1 - (1 - c/n)^k is biased."""
    n, p, k = 10, 0.15, 4
    c = np.arange(n + 1)
    weights = np.array([comb(n, each) * p**each * (1 - p) ** (n - each) for each in c])
    assert weights @ pass_at_k(np.full(n + 1, n), c, k) == pytest.approx(1 - (1 - p) ** k, abs=1e-14)
    assert abs(weights @ (1 - (1 - c / n) ** k) - (1 - (1 - p) ** k)) > 0.01


def test_pass_of_many_problems_at_once_is_scipys_hypergeometric_tail() -> None:
    n = np.array([4, 8, 64, 1000])
    c = np.array([0, 8, 3, 1])
    assert pass_at_k(n, c, 4) == pytest.approx(hypergeom.sf(0, n, c, 4), abs=1e-12)


def voted(votes: list[int | None], correct: list[bool]) -> Fraction:
    """The vote of these responses, written down as it is said."""
    counts = Counter(vote for vote in votes if vote is not None)
    if not counts:
        return Fraction(0)
    winners = [vote for vote, count in counts.items() if count == max(counts.values())]
    worths = [Fraction(correct[votes.index(winner)]) for winner in winners]  # one verdict an answer
    return sum(worths, Fraction(0)) / len(winners)


@settings(deadline=None)
@given(st.lists(ANSWERS, min_size=1, max_size=8), st.sets(st.integers(0, 3)), st.data())
def test_majority_by_enumeration(votes: list[int | None], right: set[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(votes)))
    correct = [vote in right for vote in votes]
    draws = list(combinations(range(len(votes)), k))
    drawn = [voted([votes[place] for place in draw], [correct[place] for place in draw]) for draw in draws]
    exact = sum(drawn, Fraction(0)) / len(draws)
    assert majority_at_k(votes, correct, k) == pytest.approx(float(exact), abs=1e-14)
    assert majority_at_k(votes, correct, 1) == pytest.approx(sum(correct) / len(correct), abs=1e-14)


def test_majority_by_hand() -> None:
    assert majority_at_k([0, 0, 1, 1], [True, True, False, False], 4) == 0.5  # a tie
    assert majority_at_k([0, 1, 2, 2], [True, False, False, False], 4) == 0.0
    assert majority_at_k([0, None, None], [True, False, False], 3) == 1.0  # those without an answer do not vote
    assert majority_at_k([None, None], [False, False], 1) == 0.0
    # of the 3 pairs, (0, 0) wins, (0, 1) wins half, twice
    assert majority_at_k([0, 0, 1], [True, True, False], 2) == pytest.approx(2 / 3)
    # a judge that does not go by the answer alone
    assert majority_at_k([0, 0, 1], [True, False, False], 3) == 0.5


def test_majority_of_many_samples_against_drawing() -> None:
    rng = np.random.default_rng(0)
    votes = [*rng.integers(0, 12, 60).tolist(), None, None, None, None]
    correct = [vote in (0, 5) for vote in votes]
    drawn = []
    for _ in range(4000):
        chosen = rng.choice(64, 16, replace=False)
        drawn.append(float(voted([votes[place] for place in chosen], [correct[place] for place in chosen])))
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert majority_at_k(votes, correct, 16) == pytest.approx(np.mean(drawn), abs=4 * error)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="k=3 must be at least 1, and at most 2"):
        pass_at_k(np.array([4, 2]), np.array([1, 1]), 3)
    with pytest.raises(ValueError, match="k=0"):
        pass_at_k(np.array([4]), np.array([1]), 0)
    with pytest.raises(ValueError, match="More responses are correct"):
        mean_at_k(np.array([4]), np.array([5]))
    for k in (0, 3):
        with pytest.raises(ValueError, match=f"k={k} must be"):
            majority_at_k([0, 1], [True, False], k)
