"""Mean@k, pass@k and majority@k of problems from n >= k responses each: exact expectations over the k of the n that
could have been drawn, so that no response is thrown away and nothing is drawn at random.

Shape legend: P problems.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import comb

import numpy as np

from tokenshift.analysis.checks import check_whole


def mean_at_k(responses: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Share of correct responses, float64 `(P,)`: the expected mean over k of them, for every k.

    Args:
        responses: `(P,)` n of each problem, at least 1.
        correct: `(P,)` number of correct responses of each problem.

    Raises:
        ValueError: For counts that cannot be.
    """
    return _counts(responses, correct, 1)[1] / np.asarray(responses)


def pass_at_k(responses: np.ndarray, correct: np.ndarray, k: int) -> np.ndarray:
    """Probability that at least one of k responses is correct, float64 `(P,)`: 1 - C(n - c, k) / C(n, k).

    The unbiased estimator of Chen et al. 2021, arXiv 2107.03374, as a product of k ratios: the binomial coefficients
    themselves overflow.

    Args:
        responses: `(P,)` n of each problem, at least k.
        correct: `(P,)` c of each problem.
        k: Number of responses, at least 1.

    Raises:
        ValueError: For counts that cannot be.
    """
    n, c = _counts(responses, correct, k)
    drawn = np.arange(k)
    wrong_left = np.clip((n - c)[..., None] - drawn, 0, None)  # (P, k)
    return 1 - (wrong_left / (n[..., None] - drawn)).prod(axis=-1)


def _counts(responses: np.ndarray, correct: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    check_whole("k", k)
    n, c = np.asarray(responses), np.asarray(correct)
    if k < 1 or (n < k).any():
        raise ValueError(f"k={k} must be at least 1, and at most {n.min(initial=k)}, the responses there are.")
    if ((c < 0) | (c > n)).any():
        raise ValueError("More responses are correct than there are, or fewer than none.")
    return n, c


def majority_at_k(votes: Sequence[int | None], correct: Sequence[bool], k: int) -> float:
    """Probability that the most frequent answer among k responses to one problem is correct.

    Equally frequent answers win with the same chance. A response without an answer does not vote; if none of the k
    votes, there is no answer, which counts as incorrect. An answer counts as correct by the share of its responses
    that are correct: 0 or 1 wherever correct answers equal the gold answer.

    Args:
        votes: Number of the answer that each of the n responses gives; None for no answer.
        correct: Verdict on each response.
        k: Number of responses, at least 1 and at most n.

    Raises:
        ValueError: If k is out of range.
    """
    check_whole("k", k)
    n = len(votes)
    if not 1 <= k <= n:
        raise ValueError(f"k={k} must be at least 1, and at most {n}, the responses there are.")
    verdicts: dict[int, list[bool]] = {}
    for vote, verdict in zip(votes, correct, strict=True):
        if vote is not None:
            verdicts.setdefault(vote, []).append(bool(verdict))
    counts = {vote: len(judged) for vote, judged in verdicts.items()}
    if k == n:
        winners = [vote for vote, count in counts.items() if count == max(counts.values())]
        return float(np.mean([np.mean(verdicts[vote]) for vote in winners])) if winners else 0.0
    silent = n - sum(counts.values())
    expected = 0.0
    for vote, judged in verdicts.items():
        if any(judged):
            others = tuple(sorted(count for other, count in counts.items() if other != vote))
            expected += float(np.mean(judged)) * _wins(counts[vote], others, silent, k)
    return expected


@lru_cache(maxsize=4096)
def _wins(count: int, others: tuple[int, ...], silent: int, k: int) -> float:
    """Probability that an answer wins the vote of k responses drawn without replacement.

    Ways to draw are counted in whole numbers, which neither round nor overflow.

    Args:
        count: Number of responses that give the answer.
        others: Number of responses that give each other answer.
        silent: Number of responses without an answer.
        k: Number of responses drawn.
    """
    won = Fraction(0)
    for votes in range(1, min(count, k) + 1):
        rest = k - votes
        # ways[t, v] to draw v responses that do not give the answer, with t other answers `votes` times, none oftener
        ways = np.zeros((rest // votes + 1, rest + 1), dtype=object)
        ways[0] = [comb(silent, drawn) for drawn in range(rest + 1)]
        for other in others:
            before, ways = ways, ways.copy()
            for drawn in range(1, min(other, votes - 1, rest) + 1):
                ways[:, drawn:] += comb(other, drawn) * before[:, :-drawn]
            if votes <= min(other, rest):
                ways[1:, votes:] += comb(other, votes) * before[:-1, :-votes]
        won += comb(count, votes) * sum(Fraction(int(ways[tied, rest]), tied + 1) for tied in range(len(ways)))
    return float(won / comb(count + sum(others) + silent, k))
