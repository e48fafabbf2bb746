"""The publication's claims about shifts, held against the numbers of a table (arXiv 2603.22446, sections 3 and 5)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenshift.analysis.report.numbers import PERCENT, interval_text
from tokenshift.analysis.report.statements import FEWEST_PROBLEMS, NOT_SEEN, OPEN, SEEN, Statement, more_data, within
from tokenshift.analysis.shift.exact_zero_words import exact_zero_words
from tokenshift.analysis.shift.summary import group_estimate
from tokenshift.analysis.thresholds import HIGH, IMPROBABLE, LOW_ENTROPY, NEAR_ZERO
from tokenshift.analysis.token_table.measure import FULL_JS, TRUNCATED_JS

FEWEST_TOKENS = 5
"""Number of frequent tokens below which nothing is said of them."""

NO_TOKEN = "no such token"

ABOUT_30 = (0.15, 0.45)
"""The shares that count as "about 30 %": from half of it to one and a half times it. The range is this project's."""

STEEP = 0.1
"""Smallest rise of an overlap, from k = 1 to 2, that counts as steep. The value is this project's."""


@dataclass(frozen=True)
class ShareClaim:
    """A statement that a share lies within limits.

    Attributes:
        text: The statement.
        published: The published figure.
        name, label: Where in a group's means the share is.
        above, below: The limits, which the whole interval of the share must keep.
        words: The text of the measured share, with `{}` in its place.
    """

    text: str
    published: str
    name: str
    label: str
    above: float = -math.inf
    below: float = math.inf
    words: str = "{}"


POSITION_CLAIMS = {"start": "JS is high at the start, low in the middle", "end": "JS is up again at the end"}
"""The statements on the U of JS over the response: the part that is to be above the middle -> the statement."""

POSITION_PUBLISHED = "a U, its end lower"

SFT_DENSER = ("An SFT shift is denser", "much denser")

FREQUENT_LOW = (f"Tokens frequent among high ones lie mostly low (median below {HIGH:g}): context decides", "yes")

OVERLAP_RISES = (
    f"Overlap rises steeply from k = 1 to 2 ({PERCENT * STEEP:.0f} points or more), then less than half as much",
    "steep",
)

NEAR_ZERO_CLAIM = ShareClaim(
    f"Most tokens are near zero (JS < {NEAR_ZERO:g})", "> 83 %", "sparsity", f"< {NEAR_ZERO:g}", above=0.83
)

ENTROPY_CLAIMS = (
    ShareClaim(
        "Near-zero tokens are mostly of low entropy",
        "mostly",
        "low_entropy_base",
        "near_zero",
        above=0.5,
        words=f"base entropy below {LOW_ENTROPY:g} nats at {{}}",
    ),
    ShareClaim(
        "High-JS tokens are of low and of high entropy, 5 % or more of either",
        "span both",
        "low_entropy_base",
        "high",
        above=0.05,
        below=0.95,
        words="below at {}",
    ),
)

OVERLAP_CLAIM = ShareClaim(
    "High-JS tokens keep their top-2 candidates (overlap)", "> 80 %", "overlap_high", "2", above=0.8
)

CANDIDATE_CLAIMS = (
    ShareClaim(
        f"RL's top-1 is the base's top-1 at about 30 % of them "
        f"({PERCENT * ABOUT_30[0]:.0f} to {PERCENT * ABOUT_30[1]:.0f} %)",
        "about 30 %",
        "rank_high",
        "<= 1",
        *ABOUT_30,
    ),
    ShareClaim("RL's top-1 is among the base's top 3 there", "> 80 %", "rank_high", "<= 3", above=0.8),
    ShareClaim(
        f"RL's top-1 is seldom (< 10 %) improbable (< {IMPROBABLE:g}) under base there",
        "about 5 %, or 0",
        "improbable_high",
        f"< {IMPROBABLE:g}",
        below=0.1,
    ),
)


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
        *(_share(group, claim) for claim in ENTROPY_CLAIMS),
        _identity(group),
        _share(group, OVERLAP_CLAIM),
        _rise(group),
        *(_share(group, claim) for claim in CANDIDATE_CLAIMS),
    ]
    if group["problems"] < FEWEST_PROBLEMS:
        few = f"of {group['problems']} problems"
        judged = [
            replace(statement, verdict=OPEN, measured=f"{statement.measured}; {few}", more=None)
            for statement in judged
        ]
    return judged


def percent_text(mean: Mapping[str, Any] | None) -> str:
    """A share in per cent with its interval."""
    return interval_text(mean, scale=PERCENT, digits=".1f", unit=" %", missing=NO_TOKEN)


def _share(group: dict[str, Any], claim: ShareClaim) -> Statement:
    mean = group_estimate(group, claim.name, claim.label)
    measured = claim.words.format(percent_text(mean))
    limits = (claim.above, claim.below)
    return Statement(claim.text, claim.published, measured, within(mean, *limits), more=more_data(mean, *limits))


def _sparsity(group: dict[str, Any]) -> Statement:
    """The share of near-zero tokens, and beside a truncated one the exact zeros in it."""
    statement = _share(group, NEAR_ZERO_CLAIM)
    zeros = exact_zero_words(group, brief=True) if group.get("measure") == TRUNCATED_JS else ""
    return replace(statement, measured=f"{statement.measured}; {zeros}") if zeros else statement


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
    measured = f"near zero {percent_text(sft)} against {percent_text(rl)}"
    return [Statement(*SFT_DENSER, measured, verdict)]


def position_parts(size: int) -> dict[str, tuple[int, int]]:
    """First bin and end of the start, the middle and the end of responses, among bins of relative positions."""
    return {"start": (0, 1), "middle": (size // 4, 3 * size // 4), "end": (size - 1, size)}


def position_averages(group: Mapping[str, Any]) -> dict[str, dict[str, float] | None]:
    """The divergence at the start, in the middle and at the end of responses: means of their bins.

    Args:
        group: A group of `summarise` with the means by relative position.

    Returns:
        By part `value`, `low` and `high` (nats), each averaged over the part's bins that have a value and an interval;
        None where no bin of the part has.
    """
    means = group["means"]["position_relative"]
    averages: dict[str, dict[str, float] | None] = {}
    for name, (first, last) in position_parts(len(means["labels"])).items():
        bins = [index for index in range(first, last) if None not in (means["value"][index], means["low"][index])]
        averages[name] = (
            {key: sum(means[key][index] for index in bins) / len(bins) for key in ("value", "low", "high")}
            if bins
            else None
        )
    return averages


def _positions(group: dict[str, Any]) -> list[Statement]:
    """Statements on the U of JS over the response, by the averages of the bins at its start, middle and end."""
    averages = position_averages(group)
    measured = ", ".join(f"{name} {interval_text(average, missing='none')}" for name, average in averages.items())
    middle = averages["middle"]
    judged = []
    for name, text in POSITION_CLAIMS.items():
        verdict, outer = OPEN, averages[name]
        if outer is not None and middle is not None:
            higher, lower = outer["low"] > middle["high"], outer["high"] <= middle["low"]
            verdict = SEEN if higher else NOT_SEEN if lower else OPEN
        judged.append(Statement(text, POSITION_PUBLISHED, f"{measured} nats", verdict))
    return judged


def _identity(group: dict[str, Any]) -> Statement:
    share, count = group["identity"]["frequent_mostly_low"], len(group["identity"]["high"])
    if share is None:
        return Statement(*FREQUENT_LOW, "no high token", OPEN)
    verdict = OPEN if count < FEWEST_TOKENS else SEEN if share > 0.5 else NOT_SEEN
    return Statement(*FREQUENT_LOW, f"{round(share * count)} of {count} tokens", verdict)


def _rise(group: dict[str, Any]) -> Statement:
    one, two, three = (group_estimate(group, "overlap_high", label) for label in ("1", "2", "3"))
    if one is None or two is None or three is None:
        return Statement(*OVERLAP_RISES, NO_TOKEN, OPEN)
    first, second = (
        round(PERCENT * (after["value"] - before["value"]), 1) for before, after in ((one, two), (two, three))
    )
    measured = f"by {first:.1f} points from 1 to 2, by {second:.1f} from 2 to 3"
    rises = first >= PERCENT * STEEP
    verdict = SEEN if rises and first > 2 * second else NOT_SEEN if not rises or first <= second else OPEN
    return Statement(*OVERLAP_RISES, measured, verdict)
