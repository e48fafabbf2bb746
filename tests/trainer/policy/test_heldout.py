"""Held-out scores: intervals, every kind of reward, and a run left as it was."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset
from helpers.tiny_training import Build, digit_reward, parameters, same
from scipy import stats
from transformers import TrainerCallback

from tokenshift.trainer.policy.heldout import heldout_score, score_interval


def test_intervals() -> None:
    score = score_interval([1.0] * 30 + [0.0] * 10 + [None] * 2)
    expected = stats.binomtest(30, 40).proportion_ci(0.95, method="wilson")
    assert (score.mean, score.n, score.unscored) == (0.75, 40, 2)
    assert (score.low, score.high) == pytest.approx((expected.low, expected.high))
    signed = score_interval([1.0] * 30 + [-1.0] * 10)
    assert (signed.mean, signed.low, signed.high) == pytest.approx((0.5, 2 * expected.low - 1, 2 * expected.high - 1))
    assert score_interval([-1.0] * 20).high > -1
    values = [0.1, 0.5, 0.9, 0.3]
    score = score_interval(values)
    assert score.mean == pytest.approx(0.45)
    assert (score.low, score.high) == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(0.95))
    constant = score_interval([0.5, 0.5])
    assert constant.low == constant.high == 0.5
    assert score_interval([1.0] * 20).low < 1 == score_interval([1.0] * 20).high
    with pytest.raises(ValueError, match="None of the 3 held-out problems could be scored"):
        score_interval([None] * 3)


async def async_reward(completions: list[str], **columns: Any) -> list[float]:
    return digit_reward(completions)


def state_reward(completions: list[str], trainer_state: Any, log_metric: Any, log_extra: Any, **columns: Any) -> list:
    log_metric("calls", 1.0)
    log_extra("texts", completions)
    return [float(trainer_state.global_step)] * len(completions)


@pytest.mark.parametrize("reward", [digit_reward, async_reward, state_reward])
def test_any_reward_and_nothing_left_behind(build: Build, problems: Dataset, reward: Callable) -> None:
    trainer = build(trainer_kwargs={"reward_funcs": reward})
    trainer.model.train()
    before, state = parameters(trainer), torch.get_rng_state()
    score = heldout_score(trainer, problems.select(range(7)), batch_size=3)
    assert score.n == 7
    assert score == heldout_score(trainer, problems.select(range(7)), batch_size=3)
    assert same(before, parameters(trainer))
    assert torch.equal(state, torch.get_rng_state())
    assert trainer.model.training
    assert not trainer._pending_metrics
    assert not trainer._pending_extra_logs
    assert not trainer._metrics["eval"]


def test_scoring_in_training_changes_nothing(build: Build, problems: Dataset) -> None:
    class Score(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            heldout_score(trainer, problems.select(range(4)))

    ends = []
    for callbacks in ([], [Score()]):
        trainer = build(trainer_kwargs={"callbacks": callbacks})
        trainer.train()
        ends.append(parameters(trainer))
    assert same(*ends)
