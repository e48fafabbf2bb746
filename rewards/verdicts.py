"""The outcomes of a verification, and the option that its process takes."""

from enum import StrEnum

DECIMAL_COMMA = "decimal_comma"
"""Argument of a verification process: `1,5` is one and a half."""


class Verdict(StrEnum):
    """Outcome of comparing a completion's answer with the gold answer."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_GOLD = "no gold"
    """The gold answer cannot be read, or not within the limit."""
    KILLED = "killed"
    """The verification reached its limit, or crashed its process each time."""
    UNREACHED = "not reached"
    """The budget of the call was spent before, or no process came to an end of it."""
