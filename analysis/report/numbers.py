"""Numbers of tables as text: a value with its interval, or with its standard deviation."""

from collections.abc import Mapping
from typing import Any

NOT_DEFINED = "-"
"""The text of a number that is not defined."""

PERCENT = 100.0
"""Factor from a share to per cent."""


def number_text(value: float | None, *, scale: float = 1.0, digits: str = ".3g", missing: str = NOT_DEFINED) -> str:
    """A number without its interval.

    Args:
        value: The number; None if it is not defined.
        scale: What it is multiplied by to be shown.
        digits: Its format.
        missing: The text for None.
    """
    return missing if value is None else f"{scale * value:{digits}}"


def interval_text(
    entry: Mapping[str, Any] | None,
    *,
    key: str = "value",
    scale: float = 1.0,
    digits: str = ".3g",
    ends: str | None = None,
    unit: str = "",
    missing: str = NOT_DEFINED,
) -> str:
    """A number with its interval, `value [low, high]`; the number alone where it has no interval.

    Args:
        entry: The number under `key` and the ends of its interval under `low` and `high`, each of which may be None;
            None if there is no number.
        key: Where in `entry` the number is, such as `difference`.
        scale: What the number and the ends are multiplied by to be shown.
        digits: Format of the number.
        ends: Format of the ends; `digits` if None.
        unit: Text after the number, before the bracket.
        missing: The text where there is no number.
    """
    if entry is None or entry[key] is None:
        return missing
    text = f"{scale * entry[key]:{digits}}{unit}"
    if entry["low"] is None:
        return text
    low, high = (f"{scale * entry[name]:{ends or digits}}" for name in ("low", "high"))
    return f"{text} [{low}, {high}]"


def spread_text(entry: Mapping[str, Any], *, scale: float = 1.0, digits: str = ".3g") -> str:
    """A mean and its standard deviation, `value ± sd`; the mean alone where the deviation is not defined.

    Args:
        entry: The mean under `value` and the standard deviation under `sd`, each of which may be None.
        scale: What both are multiplied by to be shown.
        digits: Format of both.
    """
    if entry["value"] is None or entry["sd"] is None:
        return number_text(entry["value"], scale=scale, digits=digits)
    return f"{scale * entry['value']:{digits}} ± {scale * entry['sd']:{digits}}"
