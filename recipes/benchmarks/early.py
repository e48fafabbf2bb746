"""Mistakes in the arguments of the benchmark that show before the slow imports."""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenshift.recipes.command_line.early_values import EarlyArguments
from tokenshift.recipes.command_line.source_fields import UNKNOWN, constant

MODELS = ("pocket", "smollm2")
"""Models that the benchmark knows."""


def check_known(name: str, values: Sequence[Any], known: Sequence[str]) -> None:
    """
    Args:
        name: the argument.
        values: its values.
        known: the values that there are.

    Raises:
        ValueError: for the first value that is not known.
    """
    if unknown := [value for value in values if value not in known]:
        raise ValueError(f"{name}={unknown[0]!r} is not known; choose of {', '.join(known)}.")


def parts_without_effect(parts: Sequence[str], options: Mapping[tuple[str, ...], Sequence[str]]) -> dict[str, str]:
    """The options that no part takes, with the reason and what to do.

    Args:
        parts: the parts that are measured.
        options: options -> the parts that take them.
    """
    reasons: dict[str, str] = {}
    for names, takers in options.items():
        if not set(takers) & set(parts):
            reason = f"it is for {', '.join(takers)}, and parts names none of these; leave it out."
            reasons |= dict.fromkeys(names, reason)
    return reasons


def check_benchmark(arguments: EarlyArguments) -> None:
    """Look at the arguments together.

    Raises:
        ValueError: for an unknown model, and for an option that no part takes.
    """
    check_known("model", [arguments.values.model], MODELS)
    options = constant("tokenshift.recipes.benchmark", "OPTIONS_OF_PARTS")
    if options is not UNKNOWN:
        arguments.refuse_without_effect(lambda values: parts_without_effect(values.parts, options))
