"""A statement of the publication, what the numbers say of it, and the words of the verdict."""

from dataclasses import dataclass

SEEN, NOT_SEEN, OPEN = "seen", "not seen", "open"
"""The verdicts."""

FEWEST_PROBLEMS = 5
"""Number of problems below which intervals by problem say nothing, and every verdict is left open."""

FEWEST_RUNS = 3
"""Number of trainings below which nothing is said of training, since a run does not tell what another would do."""


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
    """

    text: str
    published: str
    measured: str
    verdict: str
    second: str | None = None
    second_verdict: str | None = None


def of_this_run(verdict: str | None) -> str:
    """The words of a verdict that comes from one training: "seen in this run"; empty for None."""
    if verdict is None:
        return ""
    return OPEN if verdict == OPEN else f"{verdict} in this run"


def of_runs(verdict: str, runs: int) -> str:
    """The words of a verdict that comes from several trainings; fewer than three leave it open, which they say."""
    if runs >= FEWEST_RUNS:
        return verdict
    return f"{OPEN}: {runs} {'run is' if runs == 1 else 'runs are'} too few"
