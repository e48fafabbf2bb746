"""Counts of rewards that give no advantages: TRL takes NaN for a reward that was not given (None), an infinite or huge
one leaves its group, or the whole batch, without advantages, and a completion without any reward has none."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np
import torch
from accelerate.logging import get_logger
from trl.trainer.utils import is_async_callable

logger = get_logger(__name__)

UNSCORED_METRIC = "rewards/unscored_share"
"""Share of the completions that no reward function gave a reward."""

LARGEST_REWARD = 1e18
"""From this magnitude on, squares of rewards, and with them a group's variance, may overflow float32."""


class RewardCounts:
    """Counts completions since the last log: those that each reward function gave NaN, or an infinite or huge number,
    and the share that no function gave a reward."""

    def __init__(self) -> None:
        self._unscored, self._completions = 0, 0
        self._counts: Counter[str] = Counter()
        self._told: set[str] = set()  # functions of which a line was logged

    @contextmanager
    def watched(self, trainer: Any) -> Iterator[None]:
        """Count what the trainer's reward functions return.

        Args:
            trainer: a [`~trl.GRPOTrainer`]. For its reward models there is `add_model`.
        """
        functions = trainer.reward_funcs
        trainer.reward_funcs = [
            function if isinstance(function, torch.nn.Module) else self._counted(function, name, trainer)
            for function, name in zip(functions, trainer.reward_func_names, strict=True)
        ]
        try:
            yield
        finally:
            trainer.reward_funcs = functions

    def add_model(self, trainer: Any, function: Any, name: str, rewards: torch.Tensor) -> None:
        """Count the rewards `(R,)` of all ranks, where the reward function is a model, which gives no None."""
        if isinstance(function, torch.nn.Module) and trainer.accelerator.is_main_process:
            self._count(rewards.tolist(), name, trainer)

    def see_all(self, rewards: torch.Tensor) -> None:
        """Count the completions without any reward; `(R, F)` rewards of all ranks and functions, NaN for none."""
        self._unscored += int(rewards.isnan().all(dim=1).sum())
        self._completions += len(rewards)

    def metrics(self, trainer: Any) -> dict[str, float]:
        """`rewards/NAME/non_finite` of the functions that gave any, over all ranks, and `rewards/unscored_share` where
        there are completions without any reward; empties the counts.

        Every rank must call it.
        """
        names = list(dict.fromkeys(trainer.reward_func_names))
        counts = [self._counts[name] for name in names]
        self._counts.clear()
        if trainer.accelerator.num_processes > 1:
            mine = torch.tensor(counts, dtype=torch.float32, device=trainer.accelerator.device)
            counts = [int(count) for count in trainer.accelerator.reduce(mine, reduction="sum").tolist()]
        metrics = {
            f"rewards/{name}/non_finite": float(count) for name, count in zip(names, counts, strict=True) if count
        }
        if self._unscored:
            metrics[UNSCORED_METRIC] = self._unscored / self._completions
        self._unscored, self._completions = 0, 0
        return metrics

    def _counted(self, function: Callable[..., Any], name: str, trainer: Any) -> Callable[..., Any]:
        if is_async_callable(function):

            @wraps(function)
            async def counted_later(*args: Any, **kwargs: Any) -> Any:
                return self._count(await function(*args, **kwargs), name, trainer)

            return counted_later

        @wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            return self._count(function(*args, **kwargs), name, trainer)

        return counted

    def _count(self, rewards: Any, name: str, trainer: Any) -> Any:
        known = rewards if isinstance(rewards, Sequence | np.ndarray | torch.Tensor) else []
        wrong = [reward for reward in known if _is_non_finite(reward)]
        self._counts[name] += len(wrong)
        if wrong and name not in self._told:
            self._told.add(name)
            first = float(wrong[0])
            effect = (
                "it counts as no reward, as None does"
                if math.isnan(first)
                else "its group, or the whole batch, is left without advantages"
            )
            logger.warning(
                f"The reward function {name} gave {first} to {len(wrong)} of {len(rewards)} completions of update "
                f"{trainer.state.global_step + 1}: {effect}. rewards/{name}/non_finite counts such rewards.",
                main_process_only=False,
            )
        return rewards


def _is_non_finite(reward: Any) -> bool:
    try:
        return reward is not None and not abs(reward) < LARGEST_REWARD
    except (TypeError, ValueError, OverflowError):  # what is no number is TRL's to refuse
        return False
