"""Whether the answer in a completion equals the gold answer, by math-verify."""

import logging
from collections.abc import Callable
from typing import Any

from tokenshift.rewards.pool import VerificationPool
from tokenshift.rewards.text import completion_text
from tokenshift.rewards.verdicts import Verdict

logger = logging.getLogger(__name__)

_pool: VerificationPool | None = None
_warned: set[str] = set()


def verification_pool() -> VerificationPool:
    """The pool that `accuracy_reward` uses; made when first needed."""
    global _pool
    if _pool is None:
        _pool = VerificationPool()
    return _pool


def configure_verification(workers: int = 2, limit: float = 10.0) -> None:
    """Set how many processes verify, and for how many seconds each verification may run.

    Raises:
        ValueError: if either is not positive.
    """
    global _pool
    pool = VerificationPool(workers, limit)
    if _pool is not None:
        _pool.close()
    _pool = pool


def accuracy_reward(
    completions: list[str] | list[list[dict[str, str]]],
    solution: list[str],
    log_metric: Callable[[str, float], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    r"""1 where a completion's answer equals the row's gold answer, 0 where not; TRL's reward signature.

    The answer is what TRL's own `accuracy_reward` takes: LaTeX, a `\boxed{}` first. Unlike there, a verification that
    does not end (see `tokenshift.rewards.pool`) is stopped at a limit, and completions may be plain strings too.

    Args:
        completions: texts, or conversations whose last message is the completion.
        solution: gold answers, plain (`7/3`) or in LaTeX, with delimiters or without (`3\sqrt{2}`).
        log_metric: TRL's hook; receives `verification/killed`, the number of verifications stopped or crashed, which
            score 0.
        **columns: the dataset's other columns; `problem_id`, if there, names a row in the warning.

    Returns:
        A reward for each row; None, which TRL leaves out, for a row whose gold answer cannot be parsed. The first
        time, a warning names such a row.
    """
    golds = [str(gold) for gold in solution]
    texts = [completion_text(completion) for completion in completions]
    verdicts = verification_pool().verdicts(list(zip(golds, texts, strict=True)))
    for row, (gold, verdict) in enumerate(zip(golds, verdicts, strict=True)):
        if verdict is Verdict.NO_GOLD and gold not in _warned:
            _warned.add(gold)
            name = columns["problem_id"][row] if "problem_id" in columns else f"row {row} of its batch"
            logger.warning(f"The gold answer {gold[:200]!r} ({name}) cannot be parsed; its completions get no reward.")
    if log_metric is not None:
        log_metric("verification/killed", float(verdicts.count(Verdict.KILLED)))
    return [None if verdict is Verdict.NO_GOLD else float(verdict is Verdict.CORRECT) for verdict in verdicts]
