"""Where in a response its final answer begins."""

import re

import numpy as np

ANSWER = re.compile(r"\\boxed\s*\{|\\fbox\s*\{|####|(?i:final answer|the answer is)")
"""How answers are announced; the last `\\boxed` counts, or, without one, the last of the others."""


def answer_start(tokens: list[str]) -> int | None:
    """Place of the token in which the final answer's announcement begins; None if the response has none.

    Args:
        tokens: the texts of a response's tokens.
    """
    text = "".join(tokens)
    found = list(ANSWER.finditer(text))
    boxed = [match for match in found if match[0].startswith("\\")]
    if not found:
        return None
    start = (boxed or found)[-1].start()
    ends = np.cumsum([len(token) for token in tokens])
    return int(np.searchsorted(ends, start, side="right"))
