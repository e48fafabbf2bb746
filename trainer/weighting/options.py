"""The options of a user's function: its own keyword-only arguments, with their defaults and types."""

import inspect
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenshift.analysis.registry import close_match
from tokenshift.analysis.storage.json_files import parse_json
from tokenshift.trainer.guard.config_numbers import LARGEST

_TYPES = {kind.__name__: kind for kind in (bool, int, float, str)}


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        default: its value where none is given.
        kind: the type that a value must have: `bool`, `int`, `float` or `str`; None for any other, which is not
            checked.
    """

    default: Any
    kind: type | None


def location(function: Callable[..., Any]) -> str:
    """A function's name with its file and line, for messages: `saturated (my_weights.py, line 5)`."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    name = getattr(function, "__qualname__", repr(function))
    if code is None:
        return str(name)
    file = code.co_filename
    inside = file.startswith(os.getcwd() + os.sep)
    return f"{name} ({os.path.relpath(file) if inside else file}, line {code.co_firstlineno})"


def read_options(function: Callable[..., Any], positional: tuple[str, ...], kind: str) -> dict[str, Option]:
    """The options of a function.

    Args:
        function: takes the positional arguments and its options.
        positional: what it takes by position, as names for the message.
        kind: what the function is, for the message.

    Raises:
        ValueError: if the function takes other arguments.
    """
    example = f"def {getattr(function, '__name__', 'f')}({', '.join(positional)}, *, c: float = 0.5)"
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise ValueError(f"{location(function)} is no function whose arguments can be read.") from error
    by_position = [
        parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    options = [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    fits = len(by_position) == len(positional) and len(by_position) + len(options) == len(parameters)
    if not fits or any(parameter.default is parameter.empty for parameter in options):
        names = ", ".join(map(str, parameters))
        count = {1: "one argument", 2: "two arguments"}[len(positional)]
        raise ValueError(
            f"{location(function)} takes ({names}): a {kind} takes {count} by position, and its options after a *, "
            f"each with a default, as in {example}."
        )
    return {parameter.name: Option(parameter.default, _kind_of(parameter)) for parameter in options}


def _kind_of(parameter: inspect.Parameter) -> type | None:
    annotation = parameter.annotation
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return _TYPES.get(name) or _TYPES.get(type(parameter.default).__name__)


def parse_options(value: Any) -> dict[str, Any]:
    """The options that a config gives, from a mapping or its JSON.

    Raises:
        ValueError: if it is neither.
    """
    if value is None:
        return {}
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError as error:
            raise ValueError(
                f"weighting_options={value!r} is not JSON ({error}); write it as in '{{\"c\": 0.5}}'."
            ) from error
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"weighting_options={value!r} must map names of options to values, as in {{'c': 0.5}}.")
    return dict(value)


def checked_options(
    given: Mapping[str, Any], options: Mapping[str, Option], weighting: str, fields: Mapping[str, str]
) -> dict[str, Any]:
    """The values of all options, given ones over defaults.

    Args:
        given: by name.
        options: what the function takes.
        weighting: its name, for messages.
        fields: options that a field of the config sets, and which.

    Raises:
        ValueError: for a name that the function does not take, or a value of another type or that is not finite.
    """
    free = [name for name in options if name not in fields]
    for name, value in given.items():
        if name in fields:
            raise ValueError(
                f"weighting_options has {name!r}, which {fields[name]} sets; give {fields[name]} instead."
            )
        if name not in free:
            takes = f"takes {', '.join(free)}" if free else "takes none"
            raise ValueError(f"weighting_options has {name!r}; {weighting} {takes}{close_match(name, free) or '.'}")
        _check_value(name, value, options[name])
    values = {name: given.get(name, option.default) for name, option in options.items()}
    return {name: float(value) if options[name].kind is float else value for name, value in values.items()}


def _check_value(name: str, value: Any, option: Option) -> None:
    kind = option.kind
    if kind is None:
        return
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        bool: isinstance(value, bool),
        int: numeric and isinstance(value, int),
        float: numeric and math.isfinite(value) and abs(value) <= LARGEST,
        str: isinstance(value, str),
    }[kind]
    if not fits:
        wanted = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}[kind]
        limit = f" of at most {LARGEST:g}" if kind is float and numeric and math.isfinite(value) else ""
        raise ValueError(f"weighting_options: {name}={value!r} must be {wanted}{limit}.")
