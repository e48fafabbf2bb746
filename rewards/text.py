"""The text of a completion, in either of TRL's forms, and of a gold answer, which may be a number."""

import math
from numbers import Real
from typing import Any

DIGITS = 1000
LARGEST_NUMBER = 10**DIGITS
"""Whole numbers below it are taken as gold answers; Python writes no number of more than 4,300 digits, by default."""


def completion_text(completion: str | list[dict[str, Any]]) -> str:
    """A plain completion itself, or the text of a conversation's last message; empty where there is none."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else None
    if isinstance(content, list):  # in parts
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content or ""


def gold_text(gold: Any) -> str:
    """A gold answer as text: `72` of 72, of 72.0 and of numpy's numbers; empty where it is missing (None or NaN).

    Raises:
        ValueError: for something else than text or a number, and for a whole number of more than 1,000 digits.
    """
    if isinstance(gold, str):
        return gold
    if gold is None:
        return ""
    if isinstance(gold, int) and abs(gold) >= LARGEST_NUMBER:
        raise ValueError(
            f"A gold answer is a whole number of more than {DIGITS:,} digits, which Python does not write; give it as "
            "text, or leave the row out."
        )
    if getattr(gold, "ndim", None) == 0 and hasattr(gold, "item"):  # of numpy or torch
        number, written = gold.item(), str(gold)
    else:
        number, written = gold, str(gold)
    if isinstance(number, str | bool):
        return str(number)
    if isinstance(number, float):
        if not math.isfinite(number):
            return ""
        return str(int(number)) if number.is_integer() else written
    if isinstance(number, Real) or type(number).__name__ == "Decimal":
        return written
    kind = type(gold).__name__
    fields = f" Name one of its fields, such as {next(iter(gold))!r}" if isinstance(gold, dict) and gold else ""
    way = f"{fields}, after a dot in solution_column." if fields else " Turn the column into text."
    raise ValueError(f"A gold answer is a {kind} ({str(gold)[:80]}); accuracy_reward takes text or numbers.{way}")
