"""The publication's claims about shifts, held against the numbers of a table (arXiv 2603.22446, sections 3 and 5)."""

from dataclasses import dataclass, replace
from typing import Any

from tokenshift.analysis.report.numbers import PERCENT, interval_text
from tokenshift.analysis.shift.summary import labelled_estimate
from tokenshift.analysis.thresholds import HIGH, LOW_ENTROPY, NEAR_ZERO

FEWEST = 5
"""Number of problems below which intervals by problem say nothing, and every verdict is left open."""

FEWEST_TOKENS = 5
"""Number of frequent tokens below which nothing is said of them."""

SEEN, NOT_SEEN, OPEN = "seen", "not seen", "open"
"""The verdicts."""

NO_TOKEN = "no such token"


@dataclass(frozen=True)
class Statement:
    """A statement of the publication and what a table says of it.

    Attributes:
        text: The statement.
        published: The published figure.
        measured: The table's figure, with its 95 % interval.
        verdict: `seen` or `not seen` where the whole interval of a mean is on one side, else `open`; the statement
            on frequent tokens is decided by more than half of them, the one on the overlap's rise by a first step
            that is twice the second.
    """

    text: str
    published: str
    measured: str
    verdict: str


def statements(group: dict[str, Any], control: dict[str, Any] | None = None) -> list[Statement]:
    """The publication's statements for one group of `summarise`.

    Args:
        group: The group `all` of a kind of trajectory.
        control: The same group of an SFT control, where there is one.
    """
    judged = [
        _share(group, "sparsity", f"< {NEAR_ZERO:g}", "Most tokens are near zero (JS < 1e-3)", "> 83 %", least=0.83),
        *_control(group, control),
        *_positions(group),
        *_entropies(group),
        _identity(group),
        _share(
            group, "overlap_high", "2", "High-JS tokens keep their top-2 candidates (overlap)", "> 80 %", least=0.8
        ),
        _rise(group),
        _share(group, "rank_high", "<= 1", "RL's top-1 is mostly not the base's there", "about 30 % are", most=0.5),
        _share(group, "rank_high", "<= 3", "RL's top-1 is among the base's top 3 there", "> 80 %", least=0.8),
        _share(
            group,
            "improbable_high",
            "< 0.01",
            "RL's top-1 is seldom improbable under base there",
            "about 5 %, or 0",
            most=0.1,
        ),
    ]
    if group["problems"] < FEWEST:
        few = f"of {group['problems']} problems"
        judged = [replace(statement, verdict=OPEN, measured=f"{statement.measured}; {few}") for statement in judged]
    return judged


def _mean(group: dict[str, Any], name: str, label: str) -> dict[str, Any] | None:
    """The mean `name` of a label with its interval; None for a mean of nothing, or one that the group lacks."""
    means = group["means"].get(name)
    return None if means is None or label not in means["labels"] else labelled_estimate(means, label)


def _percent(mean: dict[str, Any] | None) -> str:
    return interval_text(mean, scale=PERCENT, digits=".1f", unit=" %", missing=NO_TOKEN)


def _above(mean: dict[str, Any] | None, limit: float) -> str:
    if mean is None:
        return OPEN
    return SEEN if mean["low"] > limit else NOT_SEEN if mean["high"] < limit else OPEN


def _share(
    group: dict[str, Any],
    name: str,
    label: str,
    text: str,
    published: str,
    least: float | None = None,
    most: float | None = None,
) -> Statement:
    mean = _mean(group, name, label)
    if most is not None:
        verdict = {SEEN: NOT_SEEN, NOT_SEEN: SEEN, OPEN: OPEN}[_above(mean, most)]
    else:
        verdict = _above(mean, least or 0.0)
    return Statement(text, published, _percent(mean), verdict)


def _control(group: dict[str, Any], control: dict[str, Any] | None) -> list[Statement]:
    if control is None:
        return []
    label = f"< {NEAR_ZERO:g}"
    rl, sft = _mean(group, "sparsity", label), _mean(control, "sparsity", label)
    verdict = OPEN
    if rl is not None and sft is not None:
        verdict = SEEN if sft["high"] < rl["low"] else NOT_SEEN if sft["low"] > rl["high"] else OPEN
    return [Statement("An SFT shift is denser", "much denser", f"near zero {_percent(sft)}", verdict)]


def _positions(group: dict[str, Any]) -> list[Statement]:
    """Statements on the U of JS over the response, by the averages of the bins at its start, middle and end."""
    means = group["means"]["position_relative"]
    size = len(means["labels"])
    parts = {"start": (0, 1), "middle": (size // 4, 3 * size // 4), "end": (size - 1, size)}
    averages: dict[str, dict[str, float] | None] = {}
    for name, (first, last) in parts.items():
        bins = [index for index in range(first, last) if means["value"][index] is not None]
        averages[name] = (
            {key: sum(means[key][index] for index in bins) / len(bins) for key in ("value", "low", "high")}
            if bins
            else None
        )
    measured = ", ".join(f"{name} {interval_text(average, missing='none')}" for name, average in averages.items())
    middle = averages["middle"]
    judged = []
    for name, text in (("start", "JS is high at the start, low in the middle"), ("end", "JS is up again at the end")):
        verdict, outer = OPEN, averages[name]
        if outer is not None and middle is not None:
            higher, lower = outer["low"] > middle["high"], outer["high"] < middle["low"]
            verdict = SEEN if higher else NOT_SEEN if lower else OPEN
        judged.append(Statement(text, "a U, its end lower", f"{measured} nats", verdict))
    return judged


def _entropies(group: dict[str, Any]) -> list[Statement]:
    near, high = (_mean(group, "low_entropy_base", name) for name in ("near_zero", "high"))
    both = OPEN
    if high is not None:
        low_end, high_end = high["low"], high["high"]
        both = SEEN if low_end > 0.05 and high_end < 0.95 else NOT_SEEN if high_end < 0.05 or low_end > 0.95 else OPEN
    return [
        Statement(
            "Near-zero tokens are mostly of low entropy",
            "mostly",
            f"base entropy below {LOW_ENTROPY:g} nats at {_percent(near)}",
            _above(near, 0.5),
        ),
        Statement("High-JS tokens are of low and of high entropy", "span both", f"below at {_percent(high)}", both),
    ]


def _identity(group: dict[str, Any]) -> Statement:
    share, count = group["identity"]["frequent_mostly_low"], len(group["identity"]["high"])
    text = f"Tokens frequent among high ones lie mostly low (median below {HIGH:g}): context decides"
    if share is None:
        return Statement(text, "yes", "no high token", OPEN)
    verdict = OPEN if count < FEWEST_TOKENS else SEEN if share > 0.5 else NOT_SEEN
    return Statement(text, "yes", f"{PERCENT * share:.0f} % of {count} tokens", verdict)


def _rise(group: dict[str, Any]) -> Statement:
    one, two, three = (_mean(group, "overlap_high", label) for label in ("1", "2", "3"))
    if one is None or two is None or three is None:
        return Statement("Overlap rises steeply from k = 1 to 2", "steep", NO_TOKEN, OPEN)
    first, second = two["value"] - one["value"], three["value"] - two["value"]
    measured = f"by {PERCENT * first:.1f} points from 1 to 2, by {PERCENT * second:.1f} from 2 to 3"
    verdict = SEEN if first > 2 * second else NOT_SEEN if first < second else OPEN
    return Statement("Overlap rises steeply from k = 1 to 2, then less", "steep", measured, verdict)
