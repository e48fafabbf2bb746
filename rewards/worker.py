"""One verification process: reads a JSON line `[gold, completion]`, answers with a JSON line, until its input ends.

The reply is a verdict; where gold is null, a list of the completion's answer, empty without one.

Started by `tokenshift.rewards.pool`. Imports no torch, so that it starts fast and stays small. A
verification that outlives the time limit is ended by the kernel together with this process: no Python signal handler
could interrupt a computation inside C code, and no process is left behind when the training run itself is killed.
"""

import json
import os
import resource
import signal
import sys
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
from tokenshift.rewards.formulas import is_long, parse_formula
from tokenshift.rewards.verdicts import DECIMAL_COMMA, Verdict

READY = "ready"
MEMORY_LIMIT = 4 * 2**30  # bytes; towers of powers would otherwise take the machine's


@lru_cache(maxsize=4096)
def read_gold(gold: str, decimal_comma: bool = False) -> Value | None:
    """The value of a gold answer; None where it cannot be read, so that no answer could be compared with it."""
    value = read_answer(gold, decimal_comma)
    boxed = answer_in(f"\\boxed{{{gold}}}")
    if boxed is None or read_answer(boxed, decimal_comma).text != value.text:
        return None  # braces without partners, or an empty answer
    return value if is_readable(value) and _formulas_can_be_read(value) else None


def _formulas_can_be_read(value: Value) -> bool:
    if isinstance(value, Listed):
        return all(map(_formulas_can_be_read, value.items))
    return not isinstance(value, Formula) or is_long(value.text) or parse_formula(value.text) is not None


def extract(completion: str) -> list[str]:
    """The text of the completion's answer; nothing where there is none. May never return."""
    answer = answer_in(completion)
    return [] if answer is None else [answer]


def verdict_on(gold: str, completion: str, decimal_comma: bool = False) -> Verdict:
    """Compare the completion's answer with the gold answer. May never return."""
    value = read_gold(gold, decimal_comma)
    if value is None:
        return Verdict.NO_GOLD
    answer = answer_in(completion)
    if answer is None:
        return Verdict.WRONG
    try:
        same = same_answer(value, read_answer(answer, decimal_comma))
    except Exception:  # sympy raises many kinds; what cannot be compared is not equal
        same = False
    return Verdict.CORRECT if same else Verdict.WRONG


def main(limit: float, decimal_comma: bool) -> None:
    """Serve requests on standard input; each may take `limit` seconds."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not mix with the replies
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the training run's to handle
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    print(json.dumps(READY), file=replies, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, limit)
        gold, completion = json.loads(line)
        reply = extract(completion) if gold is None else verdict_on(gold, completion, decimal_comma)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), DECIMAL_COMMA in sys.argv[2:])
