"""Names with options in brackets, such as `js_top_p(top_p=0.9)`; nothing heavy is imported."""

import ast
import inspect
from typing import Any


def base_of(name: str) -> str:
    """The name without its options."""
    return name.partition("(")[0]


def read_options(name: str, setting: str) -> dict[str, Any]:
    """The keyword arguments in the brackets of a name; none without brackets.

    Args:
        name: the name, with or without options.
        setting: what has the name, for the message.

    Raises:
        ValueError: if they cannot be read, or are no plain values.
    """
    base, bracket, _ = name.partition("(")
    if not bracket:
        return {}
    try:
        call = ast.parse(f"f{name[len(base) :]}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name):
            raise ValueError("no call")
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f"{setting}={name!r} cannot be read; options are plain values in brackets, as in {base}(option=1.0)."
        ) from error


def check_options(name: str, options: dict[str, Any], signature: inspect.Signature, setting: str) -> None:
    """
    Args:
        name: the name, for the message.
        options: its options.
        signature: of the function that they are for, whose one positional argument is what it judges.
        setting: what has the name, for the message.

    Raises:
        ValueError: if the function does not take the options.
    """
    try:
        signature.bind(None, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{setting}={name!r} cannot be called with positions and its options: {error}. Options are keyword-only "
            "arguments with defaults."
        ) from error
