"""The reward by which dynamic sampling tells useful groups from others, and the refusal of one that cannot tell."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tokenshift.analysis.registry import close_match
from tokenshift.analysis.sampling.correctness import lowest_correct
from tokenshift.analysis.thresholds import CORRECT
from tokenshift.trainer.dynamic_sampling.prompt_groups import (
    GroupOutcome,
    accuracies,
    differing,
    first_given,
    group_outcomes,
)

LENGTH_PENALTIES = ("soft_overlong_punishment_reward", "get_soft_overlong_punishment")
"""Names of TRL's length penalty, and of the function that makes it: it does not look at the answer."""


@dataclass(frozen=True)
class FilteringReward:
    """The reward that filters.

    Attributes:
        columns: its column in the rewards `(R, F)`; several where each completion is judged by its own environment.
        name: its name.
        correct_threshold: the lowest reward of a right completion.
        by_accuracy: whether a group is useful where right and wrong completions differ; if not, where rewards differ.
            For a reward of two values, such as an accuracy, both are the same.
    """

    columns: tuple[int, ...]
    name: str
    correct_threshold: float
    by_accuracy: bool

    def outcomes(self, rewards: torch.Tensor, weights: torch.Tensor, num_generations: int) -> list[GroupOutcome]:
        """The outcome of each group; see `group_outcomes`.

        Args:
            rewards: `(R, F)` over all ranks; NaN where a function gave no reward.
            weights: `(F,)`, the weight of each function.
            num_generations: completions per prompt.
        """
        return group_outcomes(
            rewards,
            weights,
            num_generations,
            self.correct_threshold,
            metrics=self.columns,
            by_accuracy=self.by_accuracy,
        )

    def mistake(self, rewards: Sequence[torch.Tensor], num_generations: int) -> str | None:
        """One line on why the reward told no group from another in all rounds of a batch; None if it could.

        Args:
            rewards: `(R, F)` of each round; NaN where a function gave no reward.
            num_generations: completions per prompt.
        """
        column = torch.cat([first_given(values, self.columns) for values in rewards])
        known = column[~column.isnan()]
        if not len(known):
            return (
                f"dynamic_sampling filters by {self.name}, which gave none of the {len(column)} completions of the "
                "first batch a reward; name another reward by dynamic_sampling_metric, or see that it can judge."
            )
        right = known >= lowest_correct(self.correct_threshold)
        constant = bool(right.all()) or not bool(right.any())
        if not self.by_accuracy or not constant or not differing(column, num_generations).any():
            return None
        return (
            f"dynamic_sampling filters by {self.name}, which is graded: its rewards in the first batch lie "
            f"between {known.min().item():.4g} and {known.max().item():.4g}, and {'all' if right.any() else 'none'} "
            f"count as right (at least correct_threshold={self.correct_threshold:g}); set correct_threshold between "
            "right and wrong, or name an accuracy by dynamic_sampling_metric."
        )

    def warning(self, rewards: Sequence[torch.Tensor], num_generations: int) -> str | None:
        """One line of advice where a reward filters by its values and keeps groups of the first batch that are all
        right or all wrong; None otherwise.

        Args:
            rewards: `(R, F)` of each round; NaN where a function gave no reward.
            num_generations: completions per prompt.
        """
        if self.by_accuracy:
            return None
        column = torch.cat([first_given(values, self.columns) for values in rewards])
        right = accuracies(column, self.correct_threshold)
        graded = differing(column, num_generations) & ~differing(right, num_generations)
        if not graded.any():
            return None
        return (
            f"dynamic_sampling filters by the values of {self.name}, which is graded: it keeps {int(graded.sum())} of "
            f"{len(graded)} groups of the first batch whose completions are all right or all wrong (right is at least "
            f"{self.correct_threshold:g}). If a penalty is part of it, set correct_threshold between right and wrong, "
            "or name an accuracy by dynamic_sampling_metric."
        )


def filtering_reward(
    metric: str | None, names: Sequence[str], correct_threshold: float = CORRECT, *, of_environments: bool = False
) -> FilteringReward:
    """The reward that filters.

    Args:
        metric: the name of a reward; the first one if None.
        names: names of all rewards, in the order of their columns.
        correct_threshold: the lowest reward of a right completion.
        of_environments: whether all rewards are those of environments, of which each judges its own completions.

    Raises:
        ValueError: if there is no such reward, if several have the name, or if the reward is a length penalty.
    """
    listed = ", ".join(names)
    if metric is not None and metric not in names:
        raise ValueError(
            f"dynamic_sampling_metric={metric!r} is none of the rewards, which are {listed}"
            f"{close_match(metric, names) or '.'}"
        )
    if metric is not None and list(names).count(metric) > 1:
        raise ValueError(
            f"dynamic_sampling_metric={metric!r} is the name of several rewards, which are {listed}; give the one "
            "that filters a name of its own (__name__)."
        )
    index = 0 if metric is None else list(names).index(metric)
    if names[index] in LENGTH_PENALTIES:
        others = [name for name in names if name not in LENGTH_PENALTIES]
        advice = f"name {' or '.join(others)}" if others else "add an accuracy to the rewards and name it"
        given = "the first reward" if metric is None else f"the reward of dynamic_sampling_metric={metric!r}"
        raise ValueError(
            f"{names[index]}, {given}, is a graded length penalty, which cannot tell right from wrong, so "
            f"dynamic_sampling cannot filter by it: {advice} by dynamic_sampling_metric."
        )
    columns = tuple(range(len(names))) if of_environments and metric is None else (index,)
    by_accuracy = metric is not None or correct_threshold != CORRECT
    return FilteringReward(columns, " or ".join(names[column] for column in columns), correct_threshold, by_accuracy)
