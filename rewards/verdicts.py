"""The outcomes of a verification."""

from enum import StrEnum


class Verdict(StrEnum):
    """Outcome of comparing a completion's answer with the gold answer."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_GOLD = "no gold"
    """The gold answer cannot be parsed."""
    KILLED = "killed"
    """The verification reached its limit or crashed its process."""
