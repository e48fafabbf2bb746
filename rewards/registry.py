"""Reward functions by name."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from tokenshift.rewards.accuracy import accuracy_reward
from tokenshift.rewards.format import format_reward

SOFT_OVERLONG = "get_soft_overlong_punishment"
NAMED: dict[str, Callable[..., Any]] = {"accuracy_reward": accuracy_reward, "format_reward": format_reward}


def load_reward(
    name: str, *, overlong_max_length: int | None = None, overlong_cache: int | None = None
) -> Callable[..., Any]:
    """A reward function by name, or by the dotted path of one of TRL's signature (`my_package.rewards.mine`).

    Args:
        name: `accuracy_reward`, `format_reward`, `get_soft_overlong_punishment` (TRL's own), or a dotted path; the
            current folder is searched too.
        overlong_max_length: tokens; length at which TRL's soft punishment reaches -1.
        overlong_cache: tokens before that at which it begins.

    Raises:
        ValueError: for a name that is neither known nor leads to a function, or missing or senseless lengths.
    """
    if name in NAMED:
        return NAMED[name]
    if name == SOFT_OVERLONG:
        if overlong_max_length is None or overlong_cache is None or not 0 < overlong_cache <= overlong_max_length:
            raise ValueError(
                f"{SOFT_OVERLONG} needs 0 < overlong_cache <= overlong_max_length, in tokens; got "
                f"overlong_cache={overlong_cache}, overlong_max_length={overlong_max_length}."
            )
        from trl.rewards import get_soft_overlong_punishment  # trl is slow to import, and only needed here

        return get_soft_overlong_punishment(overlong_max_length, overlong_cache)
    module_name, _, attribute = name.rpartition(".")
    if not module_name:
        known = ", ".join([*NAMED, SOFT_OVERLONG])
        raise ValueError(f"reward_funcs names {name!r}; known are {known}, or give a dotted path to a function.")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # whatever the user's module raises
        raise ValueError(f"reward_funcs names {name!r}, which cannot be imported: {error}.") from error
    if not callable(function):
        raise ValueError(f"reward_funcs names {name!r}, which is a {type(function).__name__}, not a function.")
    return function
