r"""The answers of completions, and which of a problem's are one: what a majority vote counts.

An answer is what `accuracy_reward` takes of a completion, and two are one if it would accept either for the other:
`\frac{1}{2}` and `0.5` vote together.
"""

import re
from collections.abc import Sequence
from typing import Any

from tokenshift.rewards.accuracy import verification_pool
from tokenshift.rewards.text import completion_text
from tokenshift.rewards.verdicts import Verdict

INTEGER = re.compile(r"-?\d{1,1000}")


def extracted_answers(completions: list[str] | list[list[dict[str, Any]]]) -> list[str | None]:
    """The text of each completion's answer; None where there is none, or where taking it reaches the limit."""
    return verification_pool().answers([completion_text(completion) for completion in completions])


def voted_answers(answers: Sequence[str | None], correct: Sequence[bool]) -> list[int | None]:
    """A number for each response to a problem, the same for those with the same answer; None without an answer.

    Args:
        answers: texts.
        correct: those known to equal the gold answer, and so one another.

    Returns:
        Numbers from 0 in the order of first appearance.
    """
    votes: list[int | None] = []
    numbers: dict[str, int] = {}  # of other answers that were met
    firsts: dict[int, str] = {}  # the first text of each
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
                found = _equal(answer, firsts)
                if found is None:
                    found, count = count, count + 1
                    firsts[found] = answer
                numbers[answer] = found
            votes.append(numbers[answer])
    return votes


def _equal(answer: str, others: dict[int, str]) -> int | None:
    """Number of the first of other answers that equals this one."""
    for number, other in others.items():
        if INTEGER.fullmatch(answer) and INTEGER.fullmatch(other):
            same = int(answer) == int(other)  # as verification finds, which takes milliseconds
        else:  # math-verify is not symmetric
            pairs = [(other, f"\\boxed{{{answer}}}"), (answer, f"\\boxed{{{other}}}")]
            same = Verdict.CORRECT in verification_pool().verdicts(pairs)
        if same:
            return number
    return None
