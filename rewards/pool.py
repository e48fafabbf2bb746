"""Verification in worker processes that a wall clock bounds.

math-verify can compute for ever on model output (a tower of powers is enough), and its own timeout is a signal
handler that works on the main thread only and waits for C code to return. So each verification runs in a process that
ends at the limit and is replaced. The processes are started from a command, not by `multiprocessing`, whose spawned
children import the user's main script again.
"""

import atexit
import hashlib
import json
import os
import selectors
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tokenshift.rewards.verdicts import DECIMAL_COMMA, Verdict

START_LIMIT = 120.0  # seconds for a process to import math-verify on a busy machine
LONGEST_LIMIT = 3600.0  # seconds
GRACE = 2.0  # seconds past the limit before the process, which ends itself, is killed from outside
CACHE_SIZE = 100_000  # replies


class _Worker:
    """A verification process and the pipe to it; used by one thread at a time."""

    def __init__(self, limit: float, decimal_comma: bool) -> None:
        self.limit, self.decimal_comma = limit, decimal_comma
        self._process: subprocess.Popen[str] | None = None
        self._replies = selectors.DefaultSelector()

    @property
    def _options(self) -> list[str]:
        return [DECIMAL_COMMA] if self.decimal_comma else []

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            # -P: a `math.py` in the user's folder must not be imported
            [sys.executable, "-P", "-m", "tokenshift.rewards.worker", str(self.limit), *self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
        assert process.stdout is not None
        self._replies.register(process.stdout, selectors.EVENT_READ)
        self._process = process
        if self._reply(START_LIMIT) is None:
            self.stop()
            raise RuntimeError(
                f"The process that verifies answers does not start; `{sys.executable} -P -m tokenshift.rewards.worker "
                f"{self.limit:g}` says why."
            )
        return process

    def _reply(self, seconds: float) -> Any:
        """The process's next line, or None when it ended or `seconds` passed."""
        assert self._process is not None
        assert self._process.stdout is not None
        if not self._replies.select(seconds):
            return None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def ask(self, gold: str | None, completion: str) -> Any:
        """The process's reply, or `KILLED`.

        Raises:
            RuntimeError: if the process cannot be started.
        """
        if self._process is not None and self._process.poll() is not None:
            self.stop()  # it was ended from outside since the last verification
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps([gold, completion]) + "\n")
            process.stdin.flush()
            reply = self._reply(self.limit + GRACE)
        except BrokenPipeError:
            reply = None
        if reply is None:
            self.stop()
            return Verdict.KILLED
        return reply

    def stop(self) -> None:
        """End the process; the next verification starts another."""
        if self._process is not None:
            assert self._process.stdout is not None
            self._replies.unregister(self._process.stdout)
            self._process.kill()
            self._process.communicate()  # closes the pipes and reaps it
            self._process = None


class VerificationPool:
    """Verifies (gold, completion) pairs in `workers` processes, each verification bounded by `limit` seconds.

    Replies are cached, but for killed ones: another try on a less busy machine may succeed. Thread-safe.

    Args:
        workers: processes; they start when first needed and take about 100 MB each.
        limit: seconds a verification may take.
        decimal_comma: whether golds and answers are written with decimal commas (`1,5` is one and a half).

    Raises:
        ValueError: if `workers` or `limit` is out of range.
    """

    def __init__(self, workers: int = 2, limit: float = 10.0, decimal_comma: bool = False) -> None:
        if workers < 1 or not 0 < limit <= LONGEST_LIMIT:
            raise ValueError(
                f"workers={workers!r} must be at least 1, and limit={limit!r} within 0 to {LONGEST_LIMIT:g} seconds."
            )
        self.workers, self.limit = workers, limit
        self._idle = [_Worker(limit, decimal_comma) for _ in range(workers)]
        self._threads: ThreadPoolExecutor | None = None
        self._cache: OrderedDict[bytes, Any] = OrderedDict()
        self._lock = threading.Lock()
        atexit.register(self.close)

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """The verdict on each (gold, completion)."""
        return [Verdict(reply) for reply in self._ask(pairs)]

    def answers(self, completions: Sequence[str]) -> list[str | None]:
        """The text of each completion's answer, as verification takes it; None where there is none, or no reply."""
        replies = self._ask([(None, completion) for completion in completions])
        return [reply[0] if isinstance(reply, list) and reply else None for reply in replies]

    def _ask(self, pairs: Sequence[tuple[str | None, str]]) -> list[Any]:
        keys = [hashlib.blake2b(json.dumps(pair).encode(), digest_size=16).digest() for pair in pairs]
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="verify")
            known = {key: self._cache[key] for key in keys if key in self._cache}
            pending = {
                key: self._threads.submit(self._ask_one, *pair)
                for key, pair in dict(zip(keys, pairs, strict=True)).items()
                if key not in known
            }
        fresh = {key: future.result() for key, future in pending.items()}
        with self._lock:
            self._cache |= {key: reply for key, reply in fresh.items() if reply is not Verdict.KILLED}
            while len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        return [known[key] if key in known else fresh[key] for key in keys]

    def _ask_one(self, gold: str | None, completion: str) -> Any:
        worker = self._idle.pop()  # as many workers as threads, and list operations are atomic
        try:
            return worker.ask(gold, completion)
        finally:
            self._idle.append(worker)

    def close(self) -> None:
        """End the processes; the pool can be used again, and starts them anew."""
        with self._lock:
            if self._threads is not None:
                self._threads.shutdown(wait=True, cancel_futures=True)
                self._threads = None
            for worker in self._idle:
                worker.stop()
