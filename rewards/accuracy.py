"""Whether the answer in a completion equals the gold answer."""

import logging
from collections.abc import Callable
from typing import Any

from tokenshift.rewards.pool import VerificationPool
from tokenshift.rewards.text import completion_text, gold_text
from tokenshift.rewards.verdicts import Verdict

logger = logging.getLogger(__name__)

_pool: VerificationPool | None = None
_warned: set[str] = set()  # gold answers
_has_warned_of_budget = False


def verification_pool() -> VerificationPool:
    """The pool that `accuracy_reward` uses; made when first needed."""
    global _pool
    if _pool is None:
        _pool = VerificationPool()
    return _pool


def configure_verification(
    workers: int = 2, limit: float = 10.0, decimal_comma: bool = False, budget: float | None = None
) -> None:
    """Set how many processes verify, how long a verification and a whole call may run, and how decimals are written.

    Args:
        workers: processes.
        limit: CPU seconds that a verification may take, and so may the reading of a gold answer.
        decimal_comma: whether `1,5` is one and a half, and `1.000` a thousand, in gold answers and in completions. If
            not, `1,000` is a thousand, and any other comma separates the values of a list.
        budget: CPU seconds of all processes that a call of the reward may take; 20 times `limit` when None. No
            verification begins after them.

    Raises:
        ValueError: if a number is not positive.
    """
    global _pool
    pool = VerificationPool(workers, limit, decimal_comma, budget)
    if _pool is not None:
        _pool.close()
    _pool = pool


def accuracy_reward(
    completions: list[str] | list[list[dict[str, str]]],
    solution: list[Any],
    log_metric: Callable[[str, float], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    r"""1 where a completion's answer equals the row's gold answer, 0 where not; TRL's reward signature.

    The gold answer decides by its kind what equals it: a number exactly, a list in any order, a tuple in its order, an
    amount in its unit; formulas are compared by math-verify, whose acceptances are checked in numbers. The answer is
    where `tokenshift.rewards.answer_place` says, a `\boxed{}` first. A verification that does not end is stopped at a
    limit of CPU seconds, and a call at a budget (`tokenshift.rewards.pool`). The rules are in
    docs/reference/gold_answers.md.

    Args:
        completions: texts, or conversations whose last message is the completion.
        solution: gold answers: numbers, or text, plain (`7/3`) or in LaTeX, with delimiters or without (`3\sqrt{2}`).
        log_metric: TRL's hook; receives `verification/killed`, the number of verifications stopped or crashed, which
            score 0, and, where there are any, `verification/unreached`, the number of those that the budget did not
            reach, which get None.
        **columns: the dataset's other columns; `problem_id`, if there, names a row in the warning.

    Returns:
        A reward for each row; None, which TRL leaves out, for a row whose gold answer cannot be read, or not within
        the limit, and for one that the budget did not reach. The first time, a warning names such a row.

    Raises:
        ValueError: for a gold answer that is neither text nor a number, such as a list or a dictionary.
    """
    global _has_warned_of_budget
    golds = [gold_text(gold) for gold in solution]
    texts = [completion_text(completion) for completion in completions]
    verdicts = verification_pool().verdicts(list(zip(golds, texts, strict=True)))
    for row, (gold, verdict) in enumerate(zip(golds, verdicts, strict=True)):
        if verdict is Verdict.NO_GOLD and gold not in _warned:
            _warned.add(gold)
            name = columns["problem_id"][row] if "problem_id" in columns else f"row {row} of its batch"
            logger.warning(f"The gold answer {gold[:200]!r} ({name}) cannot be read; its completions get no reward.")
    unreached = verdicts.count(Verdict.UNREACHED)
    if unreached and not _has_warned_of_budget:
        _has_warned_of_budget = True
        logger.warning(
            f"{unreached} of {len(verdicts)} answers get no reward: the others of their batch took all "
            f"{verification_pool().budget:g} CPU seconds (verify_budget)."
        )
    if log_metric is not None:
        log_metric("verification/killed", float(verdicts.count(Verdict.KILLED)))
        if unreached:
            log_metric("verification/unreached", float(unreached))
    without = (Verdict.NO_GOLD, Verdict.UNREACHED)
    return [None if verdict in without else float(verdict is Verdict.CORRECT) for verdict in verdicts]


def signed_accuracy_reward(
    completions: list[str] | list[list[dict[str, str]]], solution: list[Any], **columns: Any
) -> list[float | None]:
    """DAPO's reward (arXiv 2503.14476): 1 where `accuracy_reward` gives 1, -1 where it gives 0.

    Beside a length penalty between 0 and -1, the longest right completion gets 0, more than the shortest wrong one.

    Args:
        completions, solution, **columns: as for `accuracy_reward`, TRL's `log_metric` among them.

    Returns:
        A reward for each row; None, which TRL leaves out, for a row whose gold answer cannot be read.

    Raises:
        ValueError: as `accuracy_reward` does.
    """
    rewards = accuracy_reward(completions, solution, **columns)
    return [None if reward is None else 2 * reward - 1 for reward in rewards]
