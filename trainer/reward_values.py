"""Which different rewards each reward function gave, for functions that give at most two.

An accuracy may be 0 and 1, or -1 and 1. With the two values beside it, a logged mean says which share was right.
"""

import torch

MOST_VALUES = 2
"""The most different rewards of a function whose lowest and highest one are logged."""


class RewardValues:
    """The different rewards of each reward function since the last log."""

    def __init__(self) -> None:
        self._values: dict[str, set[float]] = {}

    def see(self, name: str, rewards: torch.Tensor) -> None:
        """Take note of the rewards `(R,)` of all ranks that a function gave; NaN stands for no reward."""
        values = self._values.setdefault(name, set())
        if len(values) <= MOST_VALUES:
            values.update(torch.unique(rewards[rewards.isfinite()])[: MOST_VALUES + 1].tolist())

    def metrics(self) -> dict[str, float]:
        """`rewards/NAME/lowest` and `rewards/NAME/highest` of the functions that gave one or two different rewards;
        forgets them."""
        known = {name: values for name, values in self._values.items() if 0 < len(values) <= MOST_VALUES}
        self._values = {}
        return {
            f"rewards/{name}/{key}": extreme(values)
            for name, values in known.items()
            for key, extreme in (("lowest", min), ("highest", max))
        }
