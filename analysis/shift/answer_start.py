"""The position at which the final answer of a response begins."""

import re

import numpy as np

ANSWER = re.compile(r"\\boxed\s*\{|\\fbox\s*\{|####|(?i:final answer|the answer is)")
"""Patterns that announce an answer; the last `\\boxed` counts, or, without one, the last of the others."""


def answer_start(tokens: list[str]) -> int | None:
    """Index of the token in which the final answer's announcement begins; None if the response has none.

    Args:
        tokens: the texts of a response's tokens.
    """
    text = "".join(tokens)
    announcements = list(ANSWER.finditer(text))
    if not announcements:
        return None
    boxed = [match for match in announcements if match[0].startswith("\\")]
    start = (boxed or announcements)[-1].start()
    ends = np.cumsum([len(token) for token in tokens])
    return int(np.searchsorted(ends, start, side="right"))
