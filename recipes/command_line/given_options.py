"""Options that were given explicitly, and the refusal of those among them that would have no effect.

A dataclass of arguments may have a method `without_effect(values)`, which names the options that have no effect beside
the values of all others. What is recorded as a setting of a run is then a setting that it had.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import SimpleNamespace
from typing import Any

from tokenshift.analysis.secrets import hide_secrets

GIVEN = "given_options"
"""Attribute of parsed arguments with the names of those that were given; it is no field, so nothing records it."""

WRITTEN = "written_options"
"""Attribute of parsed arguments with a [`WrittenOptions`]; it is no field either."""


@dataclass(frozen=True)
class WrittenOptions:
    """The options of a command line and a config before anything is derived from them: read again, they are the same.

    Attributes:
        values: The value of every option, given or by default, by name.
        words: The words of the command line, without secrets.
        variables: Environment variables that the config sets under `env`.
    """

    values: Mapping[str, Any]
    words: Sequence[str] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Any, ...]:
        """Nothing of it is pickled: `training_args.bin` must hold no secret, and be read without this project."""
        return frozenset, ()


def written_of(arguments: Any) -> WrittenOptions | None:
    """The options that parsed arguments were written as; None where they were not parsed from words."""
    written = getattr(arguments, WRITTEN, None)
    return written if isinstance(written, WrittenOptions) else None


def mark_written(parsed: Iterable[Any], written: WrittenOptions) -> None:
    """Remember in parsed arguments how they were written."""
    for arguments in parsed:
        setattr(arguments, WRITTEN, written)


def given_names(
    words: Sequence[str], options: Mapping[str, str], config: Mapping[str, Any], defaults: Mapping[str, Any]
) -> set[str]:
    """Names of the arguments that were given.

    Args:
        words: Words of a command line, all of which count.
        options: An option, with its hyphens -> the name of its argument.
        config: A config file's arguments; those that have their defaults change nothing, and do not count.
        defaults: The arguments' defaults by name.
    """
    named = {options.get(word.split("=", 1)[0], "") for word in words if word.startswith("--")}
    changed = {name for name, value in config.items() if name not in defaults or value != defaults[name]}
    return (named | changed) - {""}


def mark_given(parsed: Iterable[Any], names: Iterable[str]) -> None:
    """Remember in parsed arguments which were given."""
    known = frozenset(names)
    for arguments in parsed:
        setattr(arguments, GIVEN, known)


def reasons_without_effect(parsed: Sequence[Any]) -> dict[str, str]:
    """The options that have no effect, given or not, with the reason and what to do.

    Args:
        parsed: All arguments of a recipe, as instances of their dataclasses.
    """
    values = SimpleNamespace(
        **{field.name: getattr(arguments, field.name) for arguments in parsed for field in fields(arguments)}
    )
    reasons: dict[str, str] = {}
    for arguments in parsed:
        if hasattr(arguments, "without_effect"):
            reasons |= arguments.without_effect(values)
    return reasons


def refuse_without_effect(parsed: Sequence[Any], reasons: Mapping[str, str] | None = None) -> None:
    """Refuse the first option that was given and has no effect.

    Args:
        parsed: All arguments of a recipe, marked by `mark_given`.
        reasons: The options that have no effect, with the reason and what to do; those that the arguments' own
            `without_effect` name if None.

    Raises:
        ValueError: If there is one; the message has its value, the reason, and what to do.
    """
    for name, reason in (reasons_without_effect(parsed) if reasons is None else reasons).items():
        for arguments in parsed:
            if name in getattr(arguments, GIVEN, ()) and hasattr(arguments, name):
                value = hide_secrets(getattr(arguments, name), name)
                raise ValueError(f"{name}={value!r} has no effect: {reason}")
