"""The two values of a reward, as a training logs them."""

import torch

from tokenshift.trainer.reward_values import RewardValues


def test_the_lowest_and_the_highest_of_at_most_two_values() -> None:
    values = RewardValues()
    assert values.metrics() == {}
    values.see("signed", torch.tensor([-1.0, 1.0, torch.nan, 1.0]))
    values.see("wrong", torch.tensor([0.0, 0.0]))
    values.see("graded", torch.tensor([0.0, 0.5]))
    values.see("graded", torch.tensor([1.0, 0.5]))
    values.see("none", torch.tensor([torch.nan, torch.inf]))
    assert values.metrics() == {
        "rewards/signed/lowest": -1.0,
        "rewards/signed/highest": 1.0,
        "rewards/wrong/lowest": 0.0,
        "rewards/wrong/highest": 0.0,
    }
    assert values.metrics() == {}  # since the last log
    values.see("graded", torch.tensor([1.0]))
    assert values.metrics() == {"rewards/graded/lowest": 1.0, "rewards/graded/highest": 1.0}
