"""One verification process and the pipes to it, neither of which ever blocks the caller.

A verification that reaches its limit of CPU seconds ends its process by a signal of its own. A process that ends
otherwise, or stands still, says nothing about the answer: the verification is tried again in another process.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import psutil

from tokenshift.rewards.verdicts import DECIMAL_COMMA, Verdict

START_LIMIT = 120.0  # seconds for a process to import math-verify on a busy machine
TRIES = 5  # of starting a process
TRIES_OF_ONE = 3  # of one verification
LOOK = 1.0  # seconds between two looks at a process that does not answer
LOOKS_STOPPED = 2  # at a stopped process that takes no CPU time, before it is replaced
LOOKS_IDLE = 60  # at a process that is not stopped; the busiest machine gives a process some CPU time in a minute
LIMIT_STATUSES = (-signal.SIGPROF, -signal.SIGXCPU)
"""Exit statuses of a process that reached its limit."""
ENDING = 5.0  # seconds in which a process whose pipes are closed is gone
CHUNK = 65536  # bytes


@dataclass(frozen=True)
class Reply:
    """The result of a verification.

    Attributes:
        value: a verdict; where there was no gold answer, a list of the completion's answer, empty without one.
        seconds: CPU seconds that the verification took; the limit where that was reached.
        gold_seconds: CPU seconds that reading the gold answer took.
    """

    value: Any
    seconds: float
    gold_seconds: float = 0.0


class ProcessEndedError(Exception):
    """The process ended before it replied."""

    def __init__(self, status: int) -> None:
        super().__init__(f"The process ended with status {status}.")
        self.status = status


class ProcessStandsStillError(Exception):
    """The process is stopped, or gets no CPU time."""


class VerificationProcess:
    """A verification process that starts when it is first asked; used by one thread at a time.

    Args:
        limit: CPU seconds that a verification may take, and the reading of a gold answer.
        decimal_comma: whether golds and answers are written with decimal commas.
    """

    def __init__(self, limit: float, decimal_comma: bool) -> None:
        self.limit, self.decimal_comma = limit, decimal_comma
        self._process: subprocess.Popen[bytes] | None = None
        self._selector = selectors.DefaultSelector()
        self._unsent: bytes | memoryview = b""
        self._received = b""

    def ask(self, gold: str | None, completion: str) -> Reply:
        """Verify a completion, or take its answer where `gold` is None.

        Returns:
            The reply. Its value is `KILLED` where the limit was reached, or the process crashed each time; `NO_GOLD`
            where reading the gold answer reached the limit; `UNREACHED` where the process stood still each time.

        Raises:
            RuntimeError: if the process cannot be started.
        """
        request = json.dumps([gold, completion]).encode() + b"\n"
        last = Reply(Verdict.UNREACHED, 0.0)
        for _ in range(TRIES_OF_ONE):
            if self._process is not None and self._process.poll() is not None:
                self.stop()  # it was ended from outside since the last verification
            if self._process is None:
                self._start()
            try:
                return self._verify(gold, request)
            except ProcessEndedError:
                last = Reply(Verdict.KILLED, self.limit)
            except ProcessStandsStillError:
                last = Reply(Verdict.UNREACHED, 0.0)
        return last

    def _verify(self, gold: str | None, request: bytes) -> Reply:
        gold_seconds = 0.0 if gold is None else None
        self._unsent, self._received = memoryview(request), b""
        try:
            if gold is not None:
                gold_seconds = self._next_line()
            value, seconds = self._next_line()
        except ProcessEndedError as ended:
            if ended.status not in LIMIT_STATUSES:
                raise
            if gold_seconds is None:
                return Reply(Verdict.NO_GOLD, 0.0, self.limit)
            return Reply(Verdict.KILLED, self.limit, gold_seconds)
        return Reply(value, seconds, gold_seconds or 0.0)

    def _start(self) -> None:
        for _ in range(TRIES):
            process = subprocess.Popen(
                # -P: a `math.py` in the user's folder must not be imported
                [sys.executable, "-P", "-m", "tokenshift.rewards.worker", str(self.limit), *self._options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            )
            assert process.stdin is not None
            assert process.stdout is not None
            os.set_blocking(process.stdin.fileno(), False)
            self._selector.register(process.stdout, selectors.EVENT_READ)
            self._process, self._unsent, self._received = process, b"", b""
            try:
                self._next_line(START_LIMIT)
                return
            except ProcessEndedError as ended:
                if ended.status >= 0:
                    break  # no signal from outside, but an error of its own
            except ProcessStandsStillError:
                continue
        raise RuntimeError(
            f"The process that verifies answers does not start; `{sys.executable} -P -m tokenshift.rewards.worker "
            f"{self.limit:g}` says why."
        )

    @property
    def _options(self) -> list[str]:
        return [DECIMAL_COMMA] if self.decimal_comma else []

    def _next_line(self, seconds: float | None = None) -> Any:
        """The process's next line, after the rest of the request is sent.

        Args:
            seconds: wall-clock seconds to wait; any number where None.

        Raises:
            ProcessEndedError: if it ends before.
            ProcessStandsStillError: if it is stopped, gets no CPU time, or `seconds` pass.
        """
        process = self._process
        assert process is not None
        assert process.stdout is not None
        began, looks, used = time.monotonic(), 0, -1.0
        while b"\n" not in self._received:
            if self._unsent:
                self._send()
            events = self._selector.select(LOOK)
            if any(key.fileobj is process.stdout for key, _ in events):
                chunk = os.read(process.stdout.fileno(), CHUNK)
                if not chunk:
                    raise ProcessEndedError(self.stop(ENDING))
                self._received += chunk
            elif not events:
                stopped, now_used = self._look()
                looks, used = (0, now_used) if now_used > used else (looks + 1, used)
                late = seconds is not None and time.monotonic() - began > seconds
                if late or looks >= (LOOKS_STOPPED if stopped else LOOKS_IDLE):
                    self.stop()
                    raise ProcessStandsStillError
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def _send(self) -> None:
        """Send as much of the request as the process takes now; the rest when it can take more."""
        assert self._process is not None
        stdin = self._process.stdin
        assert stdin is not None
        try:
            self._unsent = self._unsent[os.write(stdin.fileno(), self._unsent[:CHUNK]) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._unsent = b""  # it ended, which reading tells
        waits = stdin in self._selector.get_map()
        if self._unsent and not waits:
            self._selector.register(stdin, selectors.EVENT_WRITE)
        elif waits and not self._unsent:
            self._selector.unregister(stdin)

    def _look(self) -> tuple[bool, float]:
        """Whether the process is stopped, and the CPU seconds it has taken."""
        assert self._process is not None
        try:
            process = psutil.Process(self._process.pid)
            times = process.cpu_times()
            return process.status() == psutil.STATUS_STOPPED, times.user + times.system
        except psutil.Error:  # it ended, which reading tells
            return False, 0.0

    def stop(self, patience: float = 0.0) -> int:
        """End the process, if there is one; the next verification starts another.

        Args:
            patience: seconds in which it may end by itself.

        Returns:
            Its exit status; the negative signal where a signal ended it.
        """
        process = self._process
        if process is None:
            return 0
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            if pipe in self._selector.get_map():
                self._selector.unregister(pipe)
            pipe.close()
        self._process = None
        return process.wait()
