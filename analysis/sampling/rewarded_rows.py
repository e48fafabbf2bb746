"""Rewards of completions to rows of a data set: the one place that calls a reward outside of TRL's training step."""

import inspect
import math
import numbers
import os
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

from tokenshift.analysis.registry import RAISED_BY_USERS, UserFunctionError

Reward = Callable[..., Any]
"""TRL's signature: keyword arguments, `completions` and columns among them, to a number or None each."""

COMPLETION_COLUMNS = ("prompt", "completion")
"""Columns of a data set that a reward is not given as they are: TRL passes `prompts` and `completions`."""


def row_rewards(
    reward: Reward,
    columns: Mapping[str, Sequence[Any]],
    completions: Sequence[Any],
    completion_ids: Sequence[list[int]] | None = None,
) -> list[float | None]:
    """The reward of each completion; None where the reward gives None or NaN.

    Args:
        reward: a reward function with TRL's signature.
        columns: the data set's columns by name, one value per completion. `prompt` is passed on as `prompts`; where
            prompts are conversations, completions that are text become messages of the assistant.
        completions: as text, or as lists of messages.
        completion_ids: token ids of the completions, for rewards that read them.

    Raises:
        ValueError: if the reward cannot be called with these columns, or gives something else than one number or None
            for each completion.
    """
    if not len(completions):
        return []
    arguments: dict[str, Any] = {
        name: list(values) for name, values in columns.items() if name not in COMPLETION_COLUMNS
    }
    arguments["completions"] = list(completions)
    if "prompt" in columns:
        arguments["prompts"] = list(columns["prompt"])
        if not isinstance(arguments["prompts"][0], str) and isinstance(completions[0], str):
            arguments["completions"] = [[{"role": "assistant", "content": text}] for text in completions]
    if completion_ids is not None:
        arguments["completion_ids"] = list(completion_ids)
    check_arguments(reward, list(arguments))
    try:
        values = reward(**arguments)
    except RAISED_BY_USERS as error:  # whatever a user's function raises
        raise _raised(reward, error) from error
    return _checked(reward, values, len(completions))


def checked_reward(reward: Reward) -> Reward:
    """A reward that is called as before, and whose mistakes are named in one line.

    Args:
        reward: a reward function with TRL's signature, which may be a coroutine function.

    Returns:
        A function that gives the reward's numbers as a list of floats, with None where there is none; NaN, which TRL
        takes as None, and infinite ones stay. It raises ValueError where the reward raises, or gives something else
        than one number or None for each completion.
    """

    def numbers_of(values: Any, count: int) -> list[float | None]:
        return _checked(reward, values, count, finite=False)

    if inspect.iscoroutinefunction(reward) or inspect.iscoroutinefunction(getattr(reward, "__call__", None)):  # noqa: B004

        async def awaited(*args: Any, **arguments: Any) -> list[float | None]:
            try:
                values = await reward(*args, **arguments)
            except RAISED_BY_USERS as error:
                raise _raised(reward, error) from error
            return numbers_of(values, len(arguments["completions"]))

        return awaited

    def called(*args: Any, **arguments: Any) -> list[float | None]:
        try:
            values = reward(*args, **arguments)
        except RAISED_BY_USERS as error:
            raise _raised(reward, error) from error
        return numbers_of(values, len(arguments["completions"]))

    return called


def _raised(reward: Reward, error: BaseException) -> BaseException:
    """The error to raise where a reward raised one: one line, with the place in the user's file."""
    if str(getattr(reward, "__module__", "")).startswith("tokenshift."):  # a shipped one
        return UserFunctionError(str(error)) if isinstance(error, ValueError) else error
    function = getattr(reward, "func", reward)  # of functools.partial
    code = getattr(function, "__code__", None) or getattr(getattr(type(function), "__call__", None), "__code__", None)  # noqa: B004
    file = getattr(code, "co_filename", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f" in {os.path.relpath(str(file))}, line {lines[-1]}" if lines else ""
    reason = " ".join(str(error).split())
    return UserFunctionError(
        f"The reward {reward_name(reward)} raised {type(error).__name__}{where}: {reason or 'no reason was given'}"
    )


def check_arguments(reward: Reward, names: Sequence[str]) -> None:
    """Check that a reward can be called with keyword arguments of these names.

    Raises:
        ValueError: if it takes others.
    """
    try:
        signature = inspect.signature(reward)
    except (TypeError, ValueError):  # some built-in functions have none
        return
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        raise ValueError(
            f"The reward {reward_name(reward)} cannot be called with the columns {', '.join(names)}: {error}. End its "
            "arguments with **columns, and give those that the data lacks a default."
        ) from error


def check_columns(reward: Reward, columns: Iterable[str]) -> None:
    """Check that a reward can be asked about rows with these columns, before there are completions.

    Raises:
        ValueError: if it takes others.
    """
    check_arguments(reward, ["prompts", "completions", *(name for name in columns if name not in COMPLETION_COLUMNS)])


def reward_name(reward: Reward) -> str:
    """A reward's module and name, for messages."""
    name = getattr(reward, "__qualname__", type(reward).__qualname__)
    return f"{getattr(reward, '__module__', '')}.{name}"


def _checked(reward: Reward, values: Any, count: int, *, finite: bool = True) -> list[float | None]:
    """The reward's reply as Python numbers; if `finite`, NaN becomes None and infinite ones are refused."""
    try:
        if hasattr(values, "tolist"):  # a tensor or an array
            values = values.tolist()
        elif isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping | Set | list | tuple):
            values = list(values)
    except RAISED_BY_USERS as error:  # a generator of the user's, or a tensor without values
        raise _raised(reward, error) from error
    if not isinstance(values, list | tuple) or len(values) != count:
        reply = " ".join(repr(values).split())
        reply = reply if len(reply) <= 100 else f"{reply[:100]}..."
        raise UserFunctionError(
            f"The reward {reward_name(reward)} returned {reply} for {count} completions; it must "
            "give a list with one number, or None, for each."
        )
    return [_number(reward, value, finite) for value in values]


def _number(reward: Reward, value: Any, finite: bool) -> float | None:
    if getattr(value, "shape", None) == ():  # a scalar of numpy, or a tensor
        value = value.item()
    if value is None or (finite and isinstance(value, float) and math.isnan(value)):  # as TRL takes it
        return None
    if not isinstance(value, numbers.Real):
        raise UserFunctionError(
            f"The reward {reward_name(reward)} returned {value!r} for a completion; it must be a number, or None "
            "where there is no reward."
        )
    if finite and math.isinf(value):
        raise UserFunctionError(f"The reward {reward_name(reward)} returned {value}; rewards are finite numbers.")
    try:
        return float(value)
    except OverflowError as error:
        raise UserFunctionError(
            f"The reward {reward_name(reward)} returned a number of {len(str(value))} digits; rewards are floats."
        ) from error
