"""The few numbers that a page begins with, each with a sentence."""

from collections.abc import Mapping
from dataclasses import dataclass

from tokenshift.analysis.report.numbers import PERCENT


@dataclass(frozen=True)
class Conclusion:
    """A number and what it says.

    Attributes:
        value: The number with its unit, such as "95.9 %".
        interval: Its 95 % interval as text, such as "95.7 to 96.0"; empty where it has none.
        sentence: What the number is, and what follows from it: one sentence.
    """

    value: str
    interval: str
    sentence: str


def percent_range(estimate: Mapping[str, float | None], digits: str = ".1f", missing: str = "") -> str:
    """The ends of a share's interval in per cent, "95.7 to 96.0"; empty where there is none.

    Args:
        estimate: `low` and `high`, a share each or None.
        digits: Format of both.
        missing: The text for one end that is None, where the other is not.
    """
    if estimate["low"] is None:
        return ""
    low, high = estimate["low"], estimate["high"]
    return f"{PERCENT * low:{digits}} to {missing if high is None else f'{PERCENT * high:{digits}}'}"


def share_conclusion(estimate: Mapping[str, float | None], sentence: str) -> Conclusion:
    """A share in per cent.

    Args:
        estimate: `value`, and `low` and `high`, which may be None.
        sentence: What follows the number.
    """
    value = estimate["value"]
    assert value is not None
    return Conclusion(f"{PERCENT * value:.1f} %", percent_range(estimate), sentence)


def points_conclusion(
    value: float, low: float | None, high: float | None, sentence: str, mark: str = ""
) -> Conclusion:
    """A difference of shares in points, signed.

    Args:
        value: The difference, a share.
        low, high: The ends of its interval, or None.
        sentence: What follows the number.
        mark: What stands before the interval, such as "≈".
    """
    ends = "" if low is None or high is None else f"{mark}{PERCENT * low:+.1f} to {PERCENT * high:+.1f}"
    return Conclusion(f"{PERCENT * value:+.1f} points", ends, sentence)
