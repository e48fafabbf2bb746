"""One verification process: reads a JSON line `[gold, completion]`, answers with a JSON line, until its input ends.

The reply is a verdict; where gold is null, a list of the completion's answer, empty without one.

Started by `tokenshift.rewards.pool`. Imports nothing but math-verify, so that it starts fast and stays small. A
verification that outlives the time limit is ended by the kernel together with this process: no Python signal handler
could interrupt a computation inside C code, and no process is left behind when the training run itself is killed.
"""

import json
import os
import re
import resource
import signal
import sys
from functools import lru_cache
from typing import Any

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

from tokenshift.rewards.verdicts import Verdict

READY = "ready"
PLAIN_NUMBER = re.compile(r"[-+]?[\d.,]+(?:\s*/\s*[\d.,]+)?\s*%?")
COMMAND = re.compile(r"\\[A-Za-z]+\*?(?:\{[A-Za-z ]*\})?")
WORD = re.compile(r"[A-Za-z]{2,}")
MEMORY_LIMIT = 4 * 2**30  # bytes; towers of powers would otherwise take the machine's

# As TRL's `accuracy_reward`: the answer must stand in LaTeX, a boxed one is tried first.
ANSWER_EXTRACTION = [
    LatexExtractionConfig(
        normalization_config=NormalizationConfig(units=True), boxed_match_priority=0, try_extract_without_anchor=False
    )
]


def delimited(gold: str) -> str:
    """A gold answer in LaTeX without delimiters gets them; numbers, prose and what has delimiters stay as they are.

    math-verify reads bare text as prose with numbers in it: of `2^{10}` it would take the 10.
    """
    if any(mark in gold for mark in ("$", "\\boxed", "\\(", "\\[")) or PLAIN_NUMBER.fullmatch(gold.strip()):
        return gold
    words = WORD.search(COMMAND.sub(" ", gold))
    return gold if words else f"${gold.strip()}$"


@lru_cache(maxsize=4096)
def _parsed_gold(gold: str) -> Any:
    return parse(delimited(gold), parsing_timeout=None)


def _parsed_answer(completion: str) -> Any:
    return parse(completion, extraction_config=ANSWER_EXTRACTION, extraction_mode="first_match", parsing_timeout=None)


def extract(completion: str) -> list[str]:
    """The text of the completion's answer; nothing where there is none. May never return."""
    texts = [parsed for parsed in _parsed_answer(completion) if isinstance(parsed, str)]
    return [text.strip() for text in texts[-1:] if text.strip()]


def verdict_on(gold: str, completion: str) -> Verdict:
    """Compare the completion's answer with the gold answer. May never return."""
    parsed_gold = _parsed_gold(gold)
    if not parsed_gold:
        return Verdict.NO_GOLD
    correct = verify(parsed_gold, _parsed_answer(completion), timeout_seconds=None)
    return Verdict.CORRECT if correct else Verdict.WRONG


def main(limit: float) -> None:
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
        reply = extract(completion) if gold is None else verdict_on(gold, completion)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
