"""A statement of the publication, what the numbers say of it, and the words of the verdict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SEEN, NOT_SEEN, OPEN = "seen", "not seen", "open"
"""The verdicts."""

FEWEST_PROBLEMS = 5
"""Number of problems below which intervals by problem say nothing, and every verdict is left open."""

FEWEST_RUNS = 3
"""Number of trainings below which nothing is said of training, since a run does not tell what another would do."""


IN_THIS_RUN = " in this run"
"""The words behind a verdict that comes from one training."""


@dataclass(frozen=True)
class Statement:
    """A statement of the publication and what one run says of it.

    Attributes:
        text: The statement.
        published: The published figure.
        measured: The run's figure, with its 95 % interval.
        verdict: `seen` or `not seen` where the whole interval of a mean is on one side, else `open`. Of shifts, the
            statement on frequent tokens is decided by more than half of them, the one on the overlap's rise by a first
            step of at least 10 points that is more than twice the second.
        second: The figure by the other measure; None where it was not taken.
        second_verdict: The verdict by the other measure.
        more: Of an open statement on a mean, how many times as much data would decide it (`more_data`); else None.
    """

    text: str
    published: str
    measured: str
    verdict: str
    second: str | None = None
    second_verdict: str | None = None
    more: float | None = None


def of_this_run(verdict: str | None) -> str:
    """The words of a verdict that comes from one training: "seen in this run"; empty for None."""
    if verdict is None:
        return ""
    return OPEN if verdict == OPEN else f"{verdict}{IN_THIS_RUN}"


def of_runs(verdict: str, runs: int) -> str:
    """The words of a verdict that comes from several trainings; fewer than three leave it open, which they say."""
    if runs >= FEWEST_RUNS:
        return verdict
    return f"{OPEN}: {runs} {'run is' if runs == 1 else 'runs are'} too few"


def within(mean: Mapping[str, Any] | None, above: float = -math.inf, below: float = math.inf) -> str:
    """The verdict of an interval: seen if it lies between two limits, not seen if it lies outside, else open."""
    if mean is None or mean["low"] is None or mean["high"] is None:
        return OPEN
    if mean["low"] > above and mean["high"] < below:
        return SEEN
    return NOT_SEEN if mean["high"] <= above or mean["low"] >= below else OPEN


def more_data(mean: Mapping[str, Any] | None, above: float = -math.inf, below: float = math.inf) -> float | None:
    """The factor of more data that decides an open statement if its value stays and its interval shrinks as 1/√n.

    Args:
        mean, above, below: As of `within`.

    Returns:
        A factor above 1; None where the statement is decided, has no interval, or has its value on a limit.
    """
    if mean is None or mean["low"] is None or mean["high"] is None or within(mean, above, below) != OPEN:
        return None
    value, down, up = mean["value"], mean["value"] - mean["low"], mean["high"] - mean["value"]
    if value in (above, below):
        return None
    if value < above:
        ratio = up / (above - value)
    elif value > below:
        ratio = down / (value - below)
    else:
        ratio = max(down / (value - above), up / (below - value))
    return float(ratio**2)


def deciding_words(statement: Statement) -> str:
    """Words for the data that would decide an open statement, such as "about 3 times as many problems".

    Empty where that is not known.
    """
    if statement.more is None:
        return ""
    if statement.more >= 100:
        return "its value lies too near the limit for more problems to decide it"
    times = math.ceil(10 * statement.more) / 10 if statement.more < 3 else math.ceil(statement.more)
    return f"about {times:g} times as many problems would decide it, if the value stayed"


def agreed(verdicts: Sequence[str]) -> str:
    """The verdict on training where each run has one of its own: the one that all have, else `open`.

    With one run it is said of that run; two are too few.

    Args:
        verdicts: `seen`, `not seen` or `open`, each with or without "in this run" behind it.
    """
    bare = {verdict.removesuffix(IN_THIS_RUN) for verdict in verdicts}
    verdict = bare.pop() if len(bare) == 1 else OPEN
    return of_this_run(verdict) if len(verdicts) == 1 else of_runs(verdict, len(verdicts))
