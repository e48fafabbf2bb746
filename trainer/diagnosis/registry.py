"""Signs of trouble by name. To add one: a module in `signs/`, its line in `signs/__init__.py`, and its test."""

from collections.abc import Callable
from dataclasses import dataclass

from tokenshift.trainer.diagnosis.run_record import RunRecord


@dataclass(frozen=True)
class Found:
    """The evidence for a sign in one training.

    Attributes:
        evidence: the numbers, in words.
        updates: the updates of the logs that have it; empty if it is not seen in logs.
        remedy: what to do, with the option to change.
    """

    evidence: str
    updates: tuple[int, ...]
    remedy: str


@dataclass(frozen=True)
class Sign:
    """One sign of trouble.

    Attributes:
        name: its name, of the module's too.
        title: what it is, in a few words.
        meaning: what it means for the run, in a sentence.
        look: finds it in a run; None if it is not there, or cannot be seen.
    """

    name: str
    title: str
    meaning: str
    look: Callable[[RunRecord], Found | None]


SIGNS: dict[str, Sign] = {}


def register_sign(title: str, meaning: str) -> Callable[[Callable[[RunRecord], Found | None]], Sign]:
    """Register a function as a sign; its name is the sign's.

    Args:
        title: what it is, in a few words.
        meaning: what it means for the run, in a sentence.

    Raises:
        ValueError: if the name is taken.
    """

    def register(look: Callable[[RunRecord], Found | None]) -> Sign:
        name = look.__name__
        if name in SIGNS:
            raise ValueError(f"The sign {name!r} is registered already; choose another name.")
        SIGNS[name] = Sign(name, title, meaning, look)
        return SIGNS[name]

    return register
