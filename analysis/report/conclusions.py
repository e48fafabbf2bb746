"""The few numbers that a page begins with, each with a sentence."""

from dataclasses import dataclass


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
