"""The publication's claims about shifts, held against the numbers of a table (arXiv 2603.22446, sections 3 and 5)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenshift.analysis.report.numbers import PERCENT, interval_text
from tokenshift.analysis.shift.exact_zero_words import exact_zero_words
from tokenshift.analysis.shift.measure import FULL_JS, TRUNCATED_JS
from tokenshift.analysis.shift.summary import group_estimate
from tokenshift.analysis.thresholds import HIGH, IMPROBABLE, LOW_ENTROPY, NEAR_ZERO

FEWEST = 5
"""Number of problems below which intervals by problem say nothing, and every verdict is left open."""

FEWEST_TOKENS = 5
"""Number of frequent tokens below which nothing is said of them."""

SEEN, NOT_SEEN, OPEN = "seen", "not seen", "open"
"""The verdicts."""

NO_TOKEN = "no such token"

ABOUT_30 = (0.15, 0.45)
"""The shares that count as "about 30 %": from half of it to one and a half times it. The range is this project's."""

STEEP = 0.1
"""Smallest rise of an overlap, from k = 1 to 2, that counts as steep. The value is this project's."""


@dataclass(frozen=True)
class Statement:
    """A statement of the publication and what a table says of it.

    Attributes:
        text: The statement.
        published: The published figure.
        measured: The table's figure, with its 95 % interval.
        verdict: `seen` or `not seen` where the whole interval of a mean is on one side, else `open`; the statement
            on frequent tokens is decided by more than half of them, the one on the overlap's rise by a first step
            of at least 10 points that is more than twice the second.
        second: The figure by the other measure; None where it was not taken.
        second_verdict: The verdict by the other measure.
    """

    text: str
    published: str
    measured: str
    verdict: str
    second: str | None = None
    second_verdict: str | None = None


def statements(
    group: dict[str, Any],
    control: dict[str, Any] | None = None,
    *,
    second: dict[str, Any] | None = None,
    second_control: dict[str, Any] | None = None,
) -> list[Statement]:
    """The publication's statements for one group of `summarise`, judged by the group's measure.

    Args:
        group: The group `all` of a kind of trajectory.
        control: The same group of an SFT control, where there is one, by the same measure.
        second: The same group by the other measure, for the second column.
        second_control: The control's group by the other measure.

    Raises:
        ValueError: If a group and its control are of different measures.
    """
    judged = _judged(group, control)
    return judged if second is None else beside(judged, _judged(second, second_control))


def beside(judged: Sequence[Statement], others: Sequence[Statement]) -> list[Statement]:
    """The statements with the figures and verdicts of others, by the other measure, in their second column."""
    return [
        replace(statement, second=other.measured, second_verdict=other.verdict)
        for statement, other in zip(judged, others, strict=True)
    ]


def _judged(group: dict[str, Any], control: dict[str, Any] | None) -> list[Statement]:
    judged = [
        _sparsity(group),
        *_control(group, control),
        *_positions(group),
        *_entropies(group),
        _identity(group),
        _share(
            group, "overlap_high", "2", "High-JS tokens keep their top-2 candidates (overlap)", "> 80 %", above=0.8
        ),
        _rise(group),
        _top1(group),
        _share(group, "rank_high", "<= 3", "RL's top-1 is among the base's top 3 there", "> 80 %", above=0.8),
        _share(
            group,
            "improbable_high",
            f"< {IMPROBABLE:g}",
            f"RL's top-1 is seldom (< 10 %) improbable (< {IMPROBABLE:g}) under base there",
            "about 5 %, or 0",
            below=0.1,
        ),
    ]
    if group["problems"] < FEWEST:
        few = f"of {group['problems']} problems"
        judged = [replace(statement, verdict=OPEN, measured=f"{statement.measured}; {few}") for statement in judged]
    return judged


def _percent(mean: dict[str, Any] | None) -> str:
    return interval_text(mean, scale=PERCENT, digits=".1f", unit=" %", missing=NO_TOKEN)


def _within(mean: dict[str, Any] | None, above: float = -math.inf, below: float = math.inf) -> str:
    """Whether a whole interval lies strictly above and below two limits (seen), outside of them (not seen), or not."""
    if mean is None or mean["low"] is None or mean["high"] is None:
        return OPEN
    if mean["low"] > above and mean["high"] < below:
        return SEEN
    return NOT_SEEN if mean["high"] <= above or mean["low"] >= below else OPEN


def _share(
    group: dict[str, Any],
    name: str,
    label: str,
    text: str,
    published: str,
    above: float = -math.inf,
    below: float = math.inf,
) -> Statement:
    mean = group_estimate(group, name, label)
    return Statement(text, published, _percent(mean), _within(mean, above, below))


def _sparsity(group: dict[str, Any]) -> Statement:
    """The share of near-zero tokens, and beside a truncated one the exact zeros in it."""
    text = f"Most tokens are near zero (JS < {NEAR_ZERO:g})"
    statement = _share(group, "sparsity", f"< {NEAR_ZERO:g}", text, "> 83 %", above=0.83)
    zeros = exact_zero_words(group, brief=True) if group.get("measure") == TRUNCATED_JS else ""
    return replace(statement, measured=f"{statement.measured}; {zeros}") if zeros else statement


def _top1(group: dict[str, Any]) -> Statement:
    low, high = ABOUT_30
    text = f"RL's top-1 is the base's top-1 at about 30 % of them ({PERCENT * low:.0f} to {PERCENT * high:.0f} %)"
    return _share(group, "rank_high", "<= 1", text, "about 30 %", above=low, below=high)


def _control(group: dict[str, Any], control: dict[str, Any] | None) -> list[Statement]:
    if control is None:
        return []
    measures = [one.get("measure", FULL_JS) for one in (group, control)]
    if measures[0] != measures[1]:
        raise ValueError(f"The control's numbers are of {measures[1]}, the others of {measures[0]}; take one measure.")
    label = f"< {NEAR_ZERO:g}"
    rl, sft = group_estimate(group, "sparsity", label), group_estimate(control, "sparsity", label)
    verdict = OPEN
    if rl is not None and sft is not None and None not in (rl["low"], sft["low"]):
        verdict = SEEN if sft["high"] < rl["low"] else NOT_SEEN if sft["low"] >= rl["high"] else OPEN
    measured = f"near zero {_percent(sft)} against {_percent(rl)}"
    return [Statement("An SFT shift is denser", "much denser", measured, verdict)]


def _positions(group: dict[str, Any]) -> list[Statement]:
    """Statements on the U of JS over the response, by the averages of the bins at its start, middle and end."""
    means = group["means"]["position_relative"]
    size = len(means["labels"])
    parts = {"start": (0, 1), "middle": (size // 4, 3 * size // 4), "end": (size - 1, size)}
    averages: dict[str, dict[str, float] | None] = {}
    for name, (first, last) in parts.items():
        bins = [index for index in range(first, last) if None not in (means["value"][index], means["low"][index])]
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
            higher, lower = outer["low"] > middle["high"], outer["high"] <= middle["low"]
            verdict = SEEN if higher else NOT_SEEN if lower else OPEN
        judged.append(Statement(text, "a U, its end lower", f"{measured} nats", verdict))
    return judged


def _entropies(group: dict[str, Any]) -> list[Statement]:
    near, high = (group_estimate(group, "low_entropy_base", name) for name in ("near_zero", "high"))
    return [
        Statement(
            "Near-zero tokens are mostly of low entropy",
            "mostly",
            f"base entropy below {LOW_ENTROPY:g} nats at {_percent(near)}",
            _within(near, above=0.5),
        ),
        Statement(
            "High-JS tokens are of low and of high entropy, 5 % or more of either",
            "span both",
            f"below at {_percent(high)}",
            _within(high, above=0.05, below=0.95),
        ),
    ]


def _identity(group: dict[str, Any]) -> Statement:
    share, count = group["identity"]["frequent_mostly_low"], len(group["identity"]["high"])
    text = f"Tokens frequent among high ones lie mostly low (median below {HIGH:g}): context decides"
    if share is None:
        return Statement(text, "yes", "no high token", OPEN)
    verdict = OPEN if count < FEWEST_TOKENS else SEEN if share > 0.5 else NOT_SEEN
    return Statement(text, "yes", f"{round(share * count)} of {count} tokens", verdict)


def _rise(group: dict[str, Any]) -> Statement:
    text = f"Overlap rises steeply from k = 1 to 2 ({PERCENT * STEEP:.0f} points or more), then less than half as much"
    one, two, three = (group_estimate(group, "overlap_high", label) for label in ("1", "2", "3"))
    if one is None or two is None or three is None:
        return Statement(text, "steep", NO_TOKEN, OPEN)
    first, second = (
        round(PERCENT * (after["value"] - before["value"]), 1) for before, after in ((one, two), (two, three))
    )
    measured = f"by {first:.1f} points from 1 to 2, by {second:.1f} from 2 to 3"
    rises = first >= PERCENT * STEEP
    verdict = SEEN if rises and first > 2 * second else NOT_SEEN if not rises or first <= second else OPEN
    return Statement(text, "steep", measured, verdict)
