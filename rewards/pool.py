"""Verification in worker processes, each verification and each call of which is bounded in CPU seconds.

math-verify can compute for ever on model output (a sum of many terms is enough), and its own timeout is a signal
handler that works on the main thread only and waits for C code to return. So each verification runs in a process that
ends at the limit and is replaced. The processes are started from a command, not by `multiprocessing`, whose spawned
children import the user's main script again.
"""

import atexit
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from tokenshift.rewards.budget import SLOW, Call, Request, check_budget
from tokenshift.rewards.process import Reply, VerificationProcess
from tokenshift.rewards.verdicts import Verdict

LONGEST_LIMIT = 3600.0  # seconds
LIMITS_IN_BUDGET = 20  # the budget of a call, in limits, where none is given
CACHE_SIZE = 100_000  # replies, beside those that reached the limit


class VerificationPool:
    """Verifies (gold, completion) pairs in `workers` processes.

    Replies are remembered: the same pair is not verified twice. What a call gives does not depend on what is
    remembered, which is charged to the budget as if it were new. Thread-safe; one call at a time.

    Args:
        workers: processes; they start when first needed and take about 60 MB each.
        limit: CPU seconds a verification may take, and so may the reading of a gold answer.
        decimal_comma: whether golds and answers are written with decimal commas (`1,5` is one and a half).
        budget: CPU seconds of all processes that a call may take; 20 times `limit` when None. No verification begins
            after them; those that began may go on to their limit. Verifications of less than a tenth of the limit are
            charged only together, when all have taken twice the budget.

    Raises:
        ValueError: if `workers`, `limit` or `budget` is out of range.
    """

    def __init__(
        self, workers: int = 2, limit: float = 10.0, decimal_comma: bool = False, budget: float | None = None
    ) -> None:
        if workers < 1 or not 0 < limit <= LONGEST_LIMIT:
            raise ValueError(
                f"workers={workers!r} must be at least 1, and limit={limit!r} within 0 to {LONGEST_LIMIT:g} seconds."
            )
        check_budget("budget", budget)
        self.workers, self.limit = workers, limit
        self.budget = LIMITS_IN_BUDGET * limit if budget is None else budget
        self._idle = [VerificationProcess(limit, decimal_comma) for _ in range(workers)]
        self._replies: OrderedDict[bytes, Reply] = OrderedDict()
        self._limited: dict[bytes, Reply] = {}  # those that reached the limit
        self._slow_golds: dict[str, float] = {}  # CPU seconds; the limit where reading one does not end
        self._lock = threading.Lock()
        self._call: Call | None = None
        atexit.register(self.close)

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """The verdict on each (gold, completion); `UNREACHED` where the budget was spent before."""
        return [Verdict(value) for value in self._ask(pairs)]

    def answers(self, completions: Sequence[str]) -> list[str | None]:
        """The text of each completion's answer, as verification takes it; None where there is none, or no reply."""
        values = self._ask([(None, completion) for completion in completions])
        return [value[0] if isinstance(value, list) and value else None for value in values]

    def _ask(self, requests: Sequence[Request]) -> list[Any]:
        with self._lock, ThreadPoolExecutor(self.workers, thread_name_prefix="verify") as threads:
            self._call = call = Call(requests, self.budget, self.limit)
            try:
                for part in (call.firsts, call.others):
                    queue = _Queue(self._unknown(call, part))
                    for future in [threads.submit(self._work, process, call, queue) for process in self._idle]:
                        future.result()
            except BaseException:
                call.stop()  # what has begun ends first: leaving this block waits for it
                raise
            finally:
                self._call = None
        values = call.values()
        return [values[request] for request in requests]

    def _unknown(self, call: Call, requests: Iterable[Request]) -> Iterator[Request]:
        """Requests until the budget is spent, without those whose reply is remembered, which is entered."""
        for request in requests:
            if call.is_over:
                return
            if (reply := self._remembered(request)) is None:
                yield request
            else:
                call.enter(request, reply)

    def _work(self, process: VerificationProcess, call: Call, queue: Iterator[Request]) -> None:
        for request in queue:
            reply = process.ask(*request)
            self._remember(request, reply)
            call.enter(request, reply)

    def _remembered(self, request: Request) -> Reply | None:
        gold = request[0]
        gold_seconds = 0.0 if gold is None else self._slow_golds.get(gold, 0.0)
        if gold_seconds >= self.limit:
            return Reply(Verdict.NO_GOLD, 0.0, gold_seconds)
        key = _key(request)
        reply = self._limited.get(key) or self._replies.get(key)
        return None if reply is None else replace(reply, gold_seconds=gold_seconds)

    def _remember(self, request: Request, reply: Reply) -> None:
        """Keep a reply, but for that of a process that stood still: another may not."""
        gold = request[0]
        if gold is not None and reply.gold_seconds >= SLOW * self.limit:
            self._slow_golds.setdefault(gold, reply.gold_seconds)
        if reply.value == Verdict.UNREACHED:
            return
        kept = self._limited if reply.value == Verdict.KILLED else self._replies
        kept[_key(request)] = reply
        if len(self._replies) > CACHE_SIZE:
            self._replies.popitem(last=False)

    def close(self) -> None:
        """End the processes; the pool can be used again, and starts them anew."""
        if (call := self._call) is not None:
            call.stop()
        with self._lock:
            for process in self._idle:
                process.stop()


class _Queue(Iterator[Request]):
    """An iterator that several threads take from."""

    def __init__(self, requests: Iterator[Request]) -> None:
        self._requests, self._lock = requests, threading.Lock()

    def __next__(self) -> Request:
        with self._lock:
            return next(self._requests)


def _key(request: Request) -> bytes:
    return hashlib.blake2b(json.dumps(request).encode(), digest_size=16).digest()
