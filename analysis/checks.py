"""Checks of arguments from Python, where nothing has looked at their types: each error is one line with the value.

The module imports the standard library alone, and every room of `analysis` may import it.
"""

import numbers
from typing import Any


def check_whole(name: str, value: Any, smallest: int = 1) -> None:
    """Refuse what is no whole number, or too small; numpy's whole numbers pass.

    Args:
        name: the argument, for the message.
        value: its value.
        smallest: the smallest number that it may be.

    Raises:
        ValueError: with the value.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name}={value!r} must be a whole number of at least {smallest}.")
    if value < smallest:
        raise ValueError(f"{name}={value!r} must be at least {smallest}.")


def is_number(value: Any) -> bool:
    """Whether something is a real number, numpy's too; true and false are none, NaN and infinity are."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
