"""A trainer that tells mistakes of reward functions in one line, and counts rewards that give no advantages."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from tokenshift.analysis.sampling.rewarded_rows import checked_reward
from tokenshift.trainer.guard.reward_counts import RewardCounts
from tokenshift.trainer.reward_values import RewardValues

if TYPE_CHECKING:
    from trl import GRPOTrainer

    from tokenshift.trainer.guard.update_guard import UpdateGuard

    _Base = GRPOTrainer
else:
    _Base = object


def check_rewards(reward_funcs: Any) -> None:
    """Refuse what cannot be a reward.

    Raises:
        ValueError: for something that is no function, no model and no name of one.
    """
    for reward in reward_funcs if isinstance(reward_funcs, list | tuple) else [reward_funcs]:
        if reward is not None and not callable(reward) and not isinstance(reward, str):
            raise ValueError(
                f"reward_funcs has {reward!r}, a {type(reward).__name__}; a reward is a function of TRL's signature, "
                "or a model, or a model's name."
            )


class WatchedRewards(_Base):
    """Mixin of [`~trl.GRPOTrainer`], behind `GuardedUpdates`: the guard sees the rewards of every update.

    It counts rewards that are not finite and completions without any. The rewards themselves are TRL's.
    """

    guard: "UpdateGuard"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._reward_counts, self._reward_values = RewardCounts(), RewardValues()
        super().__init__(*args, **kwargs)

    @contextmanager
    def _checked_rewards(self) -> Iterator[None]:
        """Report in one line what a user's reward raises, or returns by mistake."""
        rewards = self.reward_funcs
        self.reward_funcs = [
            reward if isinstance(reward, torch.nn.Module) or not callable(reward) else checked_reward(reward)
            for reward in rewards
        ]
        try:
            yield
        finally:
            self.reward_funcs = rewards

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        model: Any = self.model
        if not model.training:
            with self._checked_rewards():
                return super()._calculate_rewards(*args, **kwargs)
        with self._checked_rewards(), self._reward_counts.watched(self):
            rewards = super()._calculate_rewards(*args, **kwargs)
        for function, name, column in zip(self.reward_funcs, self.reward_func_names, rewards.T, strict=True):
            self.guard.see_rewards(name, column)
            self._reward_counts.add_model(self, function, name, column)
            self._reward_values.see(name, column)
        self._reward_counts.see_all(rewards)
        return rewards

    def _reward_metrics(self) -> dict[str, float]:
        """The metrics of `RewardCounts` and `RewardValues` since the last call; every rank must call it."""
        return {**self._reward_counts.metrics(self), **self._reward_values.metrics()}
