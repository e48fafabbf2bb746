"""Which responses count as correct, and what is said of rewards that are not 0 and 1."""

import math
from typing import Any

import numpy as np
import pytest

from tokenshift.analysis.sampling.correctness import (
    are_graded,
    check_correct_threshold,
    correctness_words,
    is_correct,
    none_correct_remark,
)
from tokenshift.analysis.sampling.responses import RewardJudge, judged
from tokenshift.analysis.sampling.rewarded_rows import row_rewards


@pytest.mark.parametrize(
    ("reward", "threshold", "correct"),
    [
        (1.0, 1.0, True),
        (0.0, 1.0, False),
        (0.9, 1.0, False),
        (0.9, 0.5, True),
        (0.1, 0.5, False),
        (-1.0, 1.0, False),  # a verifier of +1 and -1
        (-1.0, 0.0, False),
        (-0.2, -0.5, True),
        (2.0, 1.0, True),
        (float(np.float32(0.7)), 0.7, True),  # 0.7 in float32 lies below 0.7
        (sum([0.7, 0.2, 0.1]), 1.0, True),  # 0.9999999999999999
        (0.69, 0.7, False),
        (None, 0.5, None),
        (math.nan, 0.5, None),
    ],
)
def test_a_response_is_correct_from_the_threshold_on(
    reward: float | None, threshold: float, correct: bool | None
) -> None:
    assert is_correct(reward, threshold) is correct


@pytest.mark.parametrize("threshold", [math.nan, math.inf])
def test_a_threshold_is_a_finite_number(threshold: float) -> None:
    with pytest.raises(ValueError, match=f"correct_threshold={threshold} must be a finite number"):
        check_correct_threshold(threshold)


@pytest.mark.parametrize(
    ("replies", "rewards"),
    [
        ([True, False, None], [1.0, 0.0, None]),
        ([np.float32(0.5), np.bool_(True), math.nan], [0.5, 1.0, None]),
        (np.array([0.9, 0.1, np.nan]), [0.9, 0.1, None]),
    ],
)
def test_verdicts_of_whatever_numbers_a_reward_gives(replies: Any, rewards: list[float | None]) -> None:
    def rewards_of(rows: list[int], texts: list[str]) -> list[float | None]:
        return row_rewards(lambda completions: replies, {}, texts)

    judge = RewardJudge(rewards_of, threshold=0.5)
    found = judged(judge, [0, 1, 2], ["a", "b", "c"])
    assert [reward for _, reward in found] == rewards
    assert judge([0, 1, 2], ["a", "b", "c"]) == [None if reward is None else reward >= 0.5 for reward in rewards]
    assert judged(lambda rows, texts: [True, None], [0, 1], ["a", "b"]) == [(True, None), (None, None)]


def test_a_reward_is_finite() -> None:
    with pytest.raises(ValueError, match="returned inf; rewards are finite numbers"):
        row_rewards(lambda completions: [math.inf], {}, ["a"])


def test_what_is_said_of_graded_rewards() -> None:
    assert not are_graded([0.0, 1.0, None, math.nan])
    assert are_graded([0.0, 0.5])
    said = none_correct_remark([0.9, 0.1, None], 1.0)
    assert said is not None
    assert said.startswith(
        "No response counts as correct: the rewards lie between 0.1 and 0.9, and a correct response"
    )
    assert "--correct_threshold" in said
    assert "every reward is -1" in str(none_correct_remark([-1.0, -1.0]))
    assert none_correct_remark([0.9, 0.1], 0.5) is None
    assert none_correct_remark([0.0, 0.0]) is None  # a model that is always wrong
    assert none_correct_remark([]) is None
    assert correctness_words({"reward": "mine.score", "correct_threshold": 0.5}) == "mine.score >= 0.5"
    assert correctness_words({"reward": "accuracy_reward"}) == "accuracy_reward >= 1"
    assert correctness_words({}) is None
