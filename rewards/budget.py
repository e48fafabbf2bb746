"""The budget of a call in CPU seconds, and what is reached within it.

Which verifications are reached must not depend on the other work of the machine, on how many processes there are, or
on what was verified before: a run that is resumed would go on with other rewards. So requests have an order, each is
charged what it took (or took when it was verified first), and one is reached if the budget was not spent before it.
"""

import math
import threading
from collections.abc import Sequence
from typing import Any

from tokenshift.rewards.process import Reply
from tokenshift.rewards.verdicts import Verdict

SLOW = 0.1
"""A verification is slow from this part of the limit on, and charged in whole multiples of it."""

Request = tuple[str | None, str]
"""A gold answer and a completion; without a gold answer, the completion whose answer is taken."""


def check_budget(name: str, budget: float | None) -> None:
    """Check a budget of CPU seconds.

    Raises:
        ValueError: for one that is not a positive number, by the name of its setting.
    """
    if budget is not None and not 0 < budget < math.inf:
        raise ValueError(f"{name}={budget!r} must be a positive number of CPU seconds.")


class Spent:
    """CPU seconds charged to a budget.

    Slow verifications are charged in whole tenths of the limit, and quick ones only where all together take twice the
    budget: CPU time differs a little from run to run, and the place where a budget ends should not.

    Args:
        budget: CPU seconds.
        limit: CPU seconds that one verification may take.
    """

    def __init__(self, budget: float, limit: float) -> None:
        self.budget, self.step = budget, SLOW * limit
        self.slow = self.all = 0.0

    @property
    def is_all(self) -> bool:
        """Whether the budget is spent."""
        return self.slow >= self.budget or self.all >= 2 * self.budget

    def add(self, seconds: float) -> None:
        """Charge a verification."""
        self.slow += math.floor(seconds / self.step + 1e-9) * self.step
        self.all += seconds


class Call:
    """The requests of a call in the order in which they are verified and charged.

    The first request with each gold answer comes before all others, and is charged the reading of the gold answer: one
    that does not end is found once, before its other completions are begun.

    Args:
        requests: any requests; equal ones are verified once.
        budget, limit: CPU seconds of the call, and of each verification.

    Attributes:
        firsts, others: the different requests, in the order in which they are verified.
    """

    def __init__(self, requests: Sequence[Request], budget: float, limit: float) -> None:
        by_gold = {gold: (gold, completion) for gold, completion in reversed(requests) if gold is not None}
        self._first = first = set(by_gold.values())
        different = dict.fromkeys(requests)
        self.firsts = [request for request in different if request in first]
        self.others = [request for request in different if request not in first]
        self._budget, self._limit = budget, limit
        self._replies: dict[Request, Reply] = {}
        self._entered = Spent(budget, limit)
        self._lock = threading.Lock()
        self._is_stopped = False

    def enter(self, request: Request, reply: Reply) -> None:
        """Enter the reply to a request."""
        with self._lock:
            self._replies[request] = reply
            self._entered.add(self._charge(request, reply))

    def stop(self) -> None:
        """Let no further verification begin."""
        self._is_stopped = True

    @property
    def is_over(self) -> bool:
        """Whether no further request can be reached: those entered, all before it, have spent the budget."""
        with self._lock:
            return self._is_stopped or self._entered.is_all

    def values(self) -> dict[Request, Any]:
        """The verdict on each request; `UNREACHED` for requests that came after the budget was spent."""
        spent = Spent(self._budget, self._limit)
        values: dict[Request, Any] = {}
        for request in (*self.firsts, *self.others):
            reply = None if spent.is_all else self._replies.get(request)
            values[request] = Verdict.UNREACHED if reply is None else reply.value
            if reply is not None:
                spent.add(self._charge(request, reply))
        return values

    def _charge(self, request: Request, reply: Reply) -> float:
        return reply.seconds + (reply.gold_seconds if request in self._first else 0.0)
