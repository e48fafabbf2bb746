r"""The answers of completions in mathematics, and which of a problem's are one in a majority vote.

An answer is the part of a completion that `accuracy_reward` judges, and two are one if it would accept either for the
other: `\frac{1}{2}` and `0.5` vote together.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from tokenshift.rewards.accuracy import verification_pool
from tokenshift.rewards.text import completion_text
from tokenshift.rewards.verdicts import Verdict

INTEGER = re.compile(r"-?\d{1,1000}")


def extracted_answers(completions: list[str] | list[list[dict[str, Any]]]) -> list[str | None]:
    """The text of each completion's answer; None where there is none, or where taking it reaches the limit."""
    return verification_pool().answers([completion_text(completion) for completion in completions])


def equal_in_math(answer: str, other: str) -> bool:
    """Whether verification accepts either of two answers for the other."""
    if INTEGER.fullmatch(answer) and INTEGER.fullmatch(other):
        return int(answer) == int(other)  # as verification finds, which takes milliseconds
    # math-verify is not symmetric
    pairs = [(other, f"\\boxed{{{answer}}}"), (answer, f"\\boxed{{{other}}}")]
    return Verdict.CORRECT in verification_pool().verdicts(pairs)


def voted_answers(
    answers: Sequence[str | None], correct: Sequence[bool], equal: Callable[[str, str], bool] = equal_in_math
) -> list[int | None]:
    """A number for each response to a problem, the same for those with the same answer; None without an answer.

    Args:
        answers: texts.
        correct: whether a response is known to equal the gold answer, and so the others that are.
        equal: whether two answers are one.

    Returns:
        Numbers from 0 in the order of first appearance.
    """
    votes: list[int | None] = []
    numbers: dict[str, int] = {}  # of other answers that were met
    firsts: dict[int, str] = {}  # the first text of each number
    gold: int | None = None
    count = 0
    for answer, right in zip(answers, correct, strict=True):
        if right:
            if gold is None:
                gold, count = count, count + 1
            votes.append(gold)
        elif answer is None:
            votes.append(None)
        else:
            if answer not in numbers:
                number = next((number for number, first in firsts.items() if equal(answer, first)), None)
                if number is None:
                    number, count = count, count + 1
                    firsts[number] = answer
                numbers[answer] = number
            votes.append(numbers[answer])
    return votes
