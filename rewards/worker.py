"""One verification process: reads a JSON line `[gold, completion]`, answers with JSON lines, until its input ends.

The first line of an answer is the CPU seconds that reading the gold answer took, the second one
`[verdict, CPU seconds]`. Where gold is null, there is one line, `[[answer], CPU seconds]`, whose list is empty without
an answer.

Started by `tokenshift.rewards.process`. Imports no torch, so that it starts fast and stays small. A verification that
takes more CPU seconds than the limit is ended by the kernel together with this process: no Python signal handler
could interrupt a computation inside C code, and no process is left behind when the training run itself is killed.
CPU time and not the clock counts, so that verdicts are the same on a busy machine.
"""

import contextlib
import fcntl
import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import lru_cache

from tokenshift.rewards.answer_kinds import read_answer
from tokenshift.rewards.answer_place import answer_in
from tokenshift.rewards.answer_values import (
    Formula,
    Listed,
    Value,
    is_readable,
)
from tokenshift.rewards.equality import same_answer
from tokenshift.rewards.formulas import is_long, parse_formula, same_formula
from tokenshift.rewards.verdicts import DECIMAL_COMMA, Verdict

READY = "ready"
MEMORY_LIMIT = 2 * 2**30  # bytes; large numbers would otherwise take the machine's
MOST_FILES = 32  # open at once: its pipes, and a module that sympy imports late
ANY_NUMBER = "9176"
WARM_UP = ("x^2+1", "\\boxed{1+x^2}")
"""A verification before the first one, which would otherwise be charged for imports that it causes."""


@lru_cache(maxsize=4096)
def read_gold(gold: str, decimal_comma: bool = False) -> Value | None:
    """The value of a gold answer; None where it cannot be read, so that no answer could be compared with it."""
    try:
        value = read_answer(gold, decimal_comma)
        boxed = answer_in(f"\\boxed{{{gold}}}")
        if boxed is None or read_answer(boxed, decimal_comma).text != value.text:
            return None  # braces without partners, or an empty answer
        return value if is_readable(value) and _formulas_can_be_read(value) else None
    except Exception:  # the libraries that read it raise many kinds
        return None


def _formulas_can_be_read(value: Value) -> bool:
    """Whether all formulas of a gold answer can be read and have values to compare with. May never return."""
    if isinstance(value, Listed):
        return all(map(_formulas_can_be_read, value.items))
    if not isinstance(value, Formula) or is_long(value.text):
        return True
    if parse_formula(value.text) is None:
        return False
    with contextlib.suppress(Exception):  # sympy raises many kinds
        same_formula(value.text, ANY_NUMBER)  # the value of a gold answer that does not end is looked for once
    return True


def extract(completion: str) -> list[str]:
    """The text of the completion's answer; nothing where there is none. May never return."""
    answer = answer_in(completion)
    return [] if answer is None else [answer]


def verdict_on(gold: str, completion: str, decimal_comma: bool = False) -> Verdict:
    """Compare the completion's answer with the gold answer. May never return."""
    value = read_gold(gold, decimal_comma)
    if value is None:
        return Verdict.NO_GOLD
    try:
        answer = answer_in(completion)
        same = answer is not None and same_answer(value, read_answer(answer, decimal_comma))
    except Exception:  # sympy raises many kinds; what cannot be compared is not equal
        same = False
    return Verdict.CORRECT if same else Verdict.WRONG


def limit_resources() -> None:
    """Bound the memory of this process, and keep it from writing files and from opening many.

    A limit that the system does not know (macOS has no bound on memory), or that is lower already, stays as it is.
    """
    sys.dont_write_bytecode = True
    for name, most in (
        ("RLIMIT_AS", MEMORY_LIMIT),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_NOFILE", MOST_FILES),
        ("RLIMIT_CORE", 0),
    ):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (most, most))


@contextlib.contextmanager
def bounded(limit: float) -> Iterator[Callable[[], float]]:
    """End this process if what is done inside takes more than `limit` CPU seconds.

    Gives a function that tells the CPU seconds since the beginning.
    """
    began = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, limit)
    with contextlib.suppress(ValueError, OSError):  # a second bound, in whole seconds
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        most = math.ceil(began + limit) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    yield lambda: time.process_time() - began
    signal.setitimer(signal.ITIMER_PROF, 0)


@contextlib.contextmanager
def ended_by_hangup() -> Iterator[None]:
    """End this process, where the system can, if its input is closed meanwhile: the process that asked was killed.

    Nothing arrives while a request is worked on, so that the signal of its input (SIGIO) says just that.
    """
    flags = fcntl.fcntl(0, fcntl.F_GETFL)
    fcntl.fcntl(0, fcntl.F_SETFL, flags | getattr(os, "O_ASYNC", 0))
    yield
    fcntl.fcntl(0, fcntl.F_SETFL, flags)


def main(limit: float, decimal_comma: bool) -> None:
    """Serve requests on standard input; each may take `limit` CPU seconds, and so may its gold answer."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not mix with the replies
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the training run's to handle
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    verdict_on(*WARM_UP)
    limit_resources()
    print(json.dumps(READY), file=replies, flush=True)
    for line in sys.stdin:
        gold, completion = json.loads(line)
        reply: list[str] | Verdict
        with ended_by_hangup():
            if gold is None:
                with bounded(limit) as seconds:
                    reply = extract(completion)
            else:
                with bounded(limit) as seconds:
                    read_gold(gold, decimal_comma)
                print(json.dumps(seconds()), file=replies, flush=True)
                with bounded(limit) as seconds:
                    reply = verdict_on(gold, completion, decimal_comma)
        print(json.dumps([reply, seconds()]), file=replies, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), DECIMAL_COMMA in sys.argv[2:])
