"""One logged metric over a run's updates."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median


@dataclass(frozen=True)
class Series:
    """The logged values of one metric, in the order of the updates; logs without the metric are left out.

    Attributes:
        name: the metric's.
        steps: the optimizer update of each log.
        values: the value of each log; it may be NaN.
    """

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.values)

    def _taken(self, indices: Sequence[int]) -> "Series":
        return Series(self.name, tuple(self.steps[i] for i in indices), tuple(self.values[i] for i in indices))

    def where(self, holds: Callable[[float], bool]) -> "Series":
        """The logs whose value meets a condition."""
        return self._taken([index for index, value in enumerate(self.values) if holds(value)])

    def finite(self) -> "Series":
        """The logs whose value is a finite number."""
        return self.where(math.isfinite)

    def after(self, step: int) -> "Series":
        """The logs of updates later than `step`."""
        return self._taken([index for index, logged in enumerate(self.steps) if logged > step])

    def first(self, share: float) -> "Series":
        """The first `share` of the logs, rounded up."""
        return self._taken(range(math.ceil(len(self) * share)))

    def last(self, share: float) -> "Series":
        """The last `share` of the logs, rounded up."""
        return self._taken(range(len(self) - math.ceil(len(self) * share), len(self)))

    @property
    def mean(self) -> float:
        """The mean of the values; there must be at least one."""
        return fmean(self.values)

    @property
    def median(self) -> float:
        """The median of the values; there must be at least one."""
        return float(median(self.values))
