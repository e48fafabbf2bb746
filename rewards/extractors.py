"""Answer extractors by name: the text of a completion that a majority vote and the reports count as its answer."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tokenshift.analysis.registry import RAISED_BY_USERS, Registry, UserFunctionError
from tokenshift.rewards.answers import equal_in_math, extracted_answers, voted_answers

Extract = Callable[[list[str]], list[str | None]]
"""From completions, as text, to the text of each one's answer; None where there is none."""

Equal = Callable[[str, str], bool]
"""Whether two answers to a problem are one."""

REHEARSED = ["", "The answer is \\boxed{4}."]
"""Completions that a user's extractor is tried on before a model is loaded."""


@dataclass(frozen=True)
class AnswerExtractor:
    """An entry of the registry.

    Attributes:
        name: the name on command lines and in outputs.
        extract: takes the answers out of completions.
        equal: whether two answers are one.
    """

    name: str
    extract: Extract
    equal: Equal = operator.eq

    def answers(self, completions: list[str]) -> list[str | None]:
        """The text of each completion's answer; None where there is none.

        Raises:
            ValueError: if the function gives something else than one text or None for each completion.
        """
        try:
            answers: Any = self.extract(completions)
        except SystemExit as error:
            raise UserFunctionError(f"answer_extractor={self.name!r} raised SystemExit({error.code!r}).") from error
        if not isinstance(answers, list | tuple) or len(answers) != len(completions):
            got = f"{len(answers)} answers" if isinstance(answers, list | tuple) else f"a {type(answers).__name__}"
            raise ValueError(
                f"answer_extractor={self.name!r} must give a list of one answer for each completion; it gave {got} "
                f"for {len(completions)} completions."
            )
        for answer in answers:
            if not (answer is None or isinstance(answer, str)):
                raise ValueError(
                    f"answer_extractor={self.name!r} gave {answer!r}; an answer is text, or None where there is none."
                )
        return list(answers)

    def votes(self, answers: Sequence[str | None], correct: Sequence[bool]) -> list[int | None]:
        """A number for each response to one problem, as `voted_answers` gives them."""
        return voted_answers(answers, correct, self.equal)


def _from_function(name: str, function: Extract) -> AnswerExtractor:
    return AnswerExtractor(name, function)


EXTRACTORS: Registry[AnswerExtractor] = Registry("answer_extractor", "answer extractor", _from_function)
"""The registered answer extractors; iterating gives their names."""

_Function = TypeVar("_Function", bound=Extract)


def register_extractor(name: str | None = None, *, equal: Equal = operator.eq) -> Callable[[_Function], _Function]:
    """Make a function an answer extractor. How to add one, in a file `my_rewards.py` of yours:

        from tokenshift.rewards import register_extractor

        @register_extractor()
        def last_number(completions):
            return [(re.findall(r"-?[0-9]+", text) or [None])[-1] for text in completions]

    and `python recipes/evaluate.py --answer_extractor my_rewards.last_number`, or `extractor="my_rewards.last_number"`
    in `register_reward`. The dotted path works without the decorator too.

    Args:
        name: the name of the extractor; the function's when None.
        equal: whether two answers are one in a majority vote; equal texts when not given.

    Returns:
        The decorator, which gives the function back as it is. The function takes a list of completions as text, and
        gives a list of each one's answer as text, None where there is none.

    Raises:
        ValueError: for a name that is taken.
    """
    if name is not None and not isinstance(name, str):
        raise ValueError("register_extractor is called with brackets: @register_extractor().")

    def decorate(function: _Function) -> _Function:
        chosen = name or function.__name__
        EXTRACTORS.add(chosen, function, AnswerExtractor(chosen, function, equal))
        return function

    return decorate


register_extractor("math", equal=equal_in_math)(extracted_answers)
SHIPPED_EXTRACTORS = frozenset(EXTRACTORS)


def load_extractor(name: str) -> AnswerExtractor:
    """An answer extractor by name or dotted path; a user's is tried on two completions.

    Raises:
        ValueError: for a name that is neither known nor leads to a function, or a function that fails or gives
            something else than one text or None for each completion.
    """
    extractor = EXTRACTORS.get(name)
    if name in SHIPPED_EXTRACTORS:
        return extractor
    try:
        answers = extractor.extract(REHEARSED)
    except RAISED_BY_USERS as error:  # whatever the user's function raises
        reason = " ".join(str(error).split())
        raise ValueError(
            f"answer_extractor={name!r} fails on the completions {REHEARSED!r}: {type(error).__name__}: {reason}"
        ) from error
    AnswerExtractor(name, lambda _: answers).answers(REHEARSED)  # what it gave is checked
    return AnswerExtractor(name, extractor.extract, extractor.equal)
