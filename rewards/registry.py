"""Reward functions by name, or by the dotted path of a user's own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tokenshift.analysis.registry import Registry
from tokenshift.rewards.accuracy import accuracy_reward, signed_accuracy_reward
from tokenshift.rewards.format import format_reward

SOFT_OVERLONG = "get_soft_overlong_punishment"

ACCURACY_REWARDS = (accuracy_reward.__name__, signed_accuracy_reward.__name__)
"""Rewards that compare answers with the gold answers of the column `solution`."""


@dataclass(frozen=True)
class RewardEntry:
    """An entry of the registry.

    Attributes:
        name: the name on command lines and in tables.
        function: the reward; where there are options, a function that makes the reward from them.
        extractor: the answer extractor whose answers the reward judges by, those alone: the answers that it calls
            correct are one in a majority vote. None where it goes by something else.
        options: the arguments of `load_reward` that `function` makes the reward from.
    """

    name: str
    function: Callable[..., Any]
    extractor: str | None = None
    options: tuple[str, ...] = ()


def _from_function(name: str, function: Callable[..., Any]) -> RewardEntry:
    return RewardEntry(name, function)


REWARDS: Registry[RewardEntry] = Registry("reward_funcs", "reward", _from_function)
"""The registered rewards; iterating gives their names."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def register_reward(
    name: str | None = None, *, extractor: str | None = None, options: Sequence[str] = ()
) -> Callable[[_Function], _Function]:
    """Make a function a reward. How to add one, in a file `my_rewards.py` of yours:

        from tokenshift.rewards import register_reward

        @register_reward(extractor="my_rewards.last_number")
        def right_number(completions, solution, **columns):
            return [float(a == b) for a, b in zip(last_number(completions), solution)]

    and `--reward_funcs my_rewards.right_number` of a training, or `--reward_func my_rewards.right_number` of an
    analysis. The dotted path works without the decorator too; the answer extractor is then named on the command line.

    Args:
        name: the name of the reward; the function's when None.
        extractor: the name or dotted path of the answer extractor whose answers the reward judges by, and by nothing
            else; see `register_extractor`.
        options: arguments of `load_reward`; if there are any, the decorated function makes the reward from them.

    Returns:
        The decorator, which gives the function back as it is. The function has TRL's signature: columns of the data
        set as keyword arguments, `completions` among them, to a list of one number, or None, for each completion.

    Raises:
        ValueError: for a name that is taken.
    """
    if name is not None and not isinstance(name, str):
        raise ValueError("register_reward is called with brackets: @register_reward().")

    def decorate(function: _Function) -> _Function:
        chosen = name or function.__name__
        REWARDS.add(chosen, function, RewardEntry(chosen, function, extractor, tuple(options)))
        return function

    return decorate


register_reward(extractor="math")(accuracy_reward)
register_reward(extractor="math")(signed_accuracy_reward)
register_reward()(format_reward)


@register_reward(SOFT_OVERLONG, options=("overlong_max_length", "overlong_cache"))
def soft_overlong_punishment(*, overlong_max_length: int | None, overlong_cache: int | None) -> Callable[..., Any]:
    """TRL's soft punishment of long completions.

    Raises:
        ValueError: for missing or senseless lengths.
    """
    if overlong_max_length is None or overlong_cache is None or not 0 < overlong_cache <= overlong_max_length:
        raise ValueError(
            f"{SOFT_OVERLONG} needs 0 < overlong_cache <= overlong_max_length, in tokens; got "
            f"overlong_cache={overlong_cache}, overlong_max_length={overlong_max_length}."
        )
    from trl.rewards import get_soft_overlong_punishment  # trl is slow to import, and only needed here

    return get_soft_overlong_punishment(overlong_max_length, overlong_cache)


def load_reward(
    name: str, *, overlong_max_length: int | None = None, overlong_cache: int | None = None
) -> Callable[..., Any]:
    """A reward function by name, or by the dotted path of one of TRL's signature (`my_package.rewards.mine`).

    Args:
        name: `accuracy_reward`, `signed_accuracy_reward`, `format_reward`, `get_soft_overlong_punishment` (TRL's own),
            a name that `register_reward` gave, or a dotted path; the current folder is searched too.
        overlong_max_length: tokens; length at which TRL's soft punishment reaches -1.
        overlong_cache: tokens before that at which it begins.

    Raises:
        ValueError: for a name that is neither known nor leads to a function, or missing or senseless lengths.
    """
    entry = REWARDS.get(name)
    if not entry.options:
        return entry.function
    settings = {"overlong_max_length": overlong_max_length, "overlong_cache": overlong_cache}
    reward: Callable[..., Any] = entry.function(**{option: settings[option] for option in entry.options})
    return reward


def reward_extractor(name: str) -> str | None:
    """The name of the answer extractor whose answers a reward judges by; None where it names none.

    Raises:
        ValueError: for a name that is neither known nor leads to a function.
    """
    return REWARDS.get(name).extractor
