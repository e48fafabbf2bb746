"""Times compared within one run: each round times all in turn, and ratios are taken inside a round."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles

import torch
from rich.progress import track


@dataclass(frozen=True)
class Ratio:
    """The time that one thing takes, relative to another.

    Attributes:
        middle, low, high: median and quartiles over rounds.
        rounds: how many.
    """

    middle: float
    low: float
    high: float
    rounds: int

    def inverse(self) -> "Ratio":
        """The inverse ratio, which tells how many times faster it is."""
        return Ratio(1 / self.middle, 1 / self.high, 1 / self.low, self.rounds)

    def scaled(self, factor: float) -> "Ratio":
        """The same ratio in another unit: every number times `factor`."""
        return Ratio(factor * self.middle, factor * self.low, factor * self.high, self.rounds)

    def __str__(self) -> str:
        return f"{self.middle:.3g} ({self.low:.3g} to {self.high:.3g})"


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock time of a call, the accelerator's work included."""
    start = time.perf_counter()
    function()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - start


def timed(
    functions: dict[str, Callable[[], object]], rounds: int, description: str, warm: bool = False
) -> dict[str, list[float]]:
    """Seconds of each function in each of `rounds` rounds; one more round before them warms up what is not `warm`."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in track(range(int(warm), rounds + 1), description, transient=True):
        for name, function in functions.items():
            taken = seconds(function)
            if number:
                times[name].append(taken)
    return times


def ratio(times: dict[str, list[float]], name: str, against: str) -> Ratio:
    """One function's time over another's, round by round."""
    ratios = [seconds / other for seconds, other in zip(times[name], times[against], strict=True)]
    low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Ratio(median(ratios), low, high, len(ratios))
