"""Rewards of rows: what a reward is given, and what it may give back."""

import re
from typing import Any

import numpy as np
import pytest
import torch

from tokenshift.analysis.sampling.rewarded_rows import check_columns, row_rewards

COLUMNS = {"prompt": ["1+1", "2+2"], "completion": ["x", "y"], "solution": ["2", "4"]}
CONVERSATIONS = [[{"role": "user", "content": prompt}] for prompt in COLUMNS["prompt"]]


def test_a_reward_is_given_the_columns_as_trl_gives_them() -> None:
    seen: list[dict[str, Any]] = []

    def reward(**arguments: Any) -> list[float]:
        seen.append(arguments)
        return [0.0] * len(arguments["completions"])

    assert row_rewards(reward, COLUMNS, ["2", "5"]) == [0.0, 0.0]
    assert seen[0] == {"prompts": ["1+1", "2+2"], "completions": ["2", "5"], "solution": ["2", "4"]}
    row_rewards(reward, {"prompt": CONVERSATIONS}, ["2", "5"], [[7], [8, 9]])
    messages = [[{"role": "assistant", "content": text}] for text in ("2", "5")]
    assert seen[1] == {"prompts": CONVERSATIONS, "completions": messages, "completion_ids": [[7], [8, 9]]}
    row_rewards(reward, {"prompt": CONVERSATIONS}, messages)
    assert seen[2]["completions"] == messages
    row_rewards(reward, {"solution": ["2", "4"]}, ["2", "5"])
    assert seen[3] == {"solution": ["2", "4"], "completions": ["2", "5"]}
    assert row_rewards(reward, {"solution": []}, []) == []
    assert len(seen) == 4


@pytest.mark.parametrize(
    "values",
    [
        [1, 0],
        (True, False),
        np.array([1.0, 0.0]),
        torch.tensor([1.0, 0.0]),
        [np.float32(1), np.int64(0)],
        [torch.tensor(1.0), torch.tensor(0)],
    ],
)
def test_numbers_of_every_library_are_taken(values: Any) -> None:
    rewards = row_rewards(lambda **columns: values, COLUMNS, ["2", "5"])
    assert rewards == [1.0, 0.0]
    assert all(type(reward) is float for reward in rewards)


def test_no_reward_is_none() -> None:
    assert row_rewards(lambda **columns: [None, float("nan")], COLUMNS, ["2", "5"]) == [None, None]


def mine(**columns: Any) -> Any:
    return columns["solution"][0]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ([1.0], "mine returned [1.0] for 2 completions; it must give a list with one number, or None, for each."),
        (np.zeros((3,)), "mine returned [0.0, 0.0, 0.0] for 2 completions"),
        (1.0, "mine returned 1.0 for 2 completions"),
        (None, "mine returned None for 2 completions"),
        (["1", "0"], "mine returned '1' for a completion; it must be a number, or None where there is no reward."),
        ([[1.0], [0.0]], "mine returned [1.0] for a completion"),
    ],
)
def test_wrong_replies_are_one_line(reply: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"The reward {__name__}.{said}")) as error:
        row_rewards(mine, {"solution": [reply, None]}, ["2", "5"])
    assert "\n" not in str(error.value)


def test_a_reward_that_lacks_an_argument_is_named_before_it_is_called() -> None:
    def narrow(completions: list[str], solution: list[str]) -> list[float]:
        return [1.0] * len(completions)

    def demanding(completions: list[str], level: list[str], **columns: Any) -> list[float]:
        return [1.0] * len(completions)

    with pytest.raises(ValueError, match=r"narrow cannot be called with .*unexpected keyword argument 'prompts'"):
        check_columns(narrow, ["prompt", "solution"])
    with pytest.raises(ValueError, match=r"missing a required argument: 'level'. End its arguments with \*\*columns"):
        check_columns(demanding, ["prompt", "solution"])
    check_columns(demanding, ["prompt", "level"])
    assert row_rewards(narrow, {"solution": ["2"]}, ["2"]) == [1.0]
