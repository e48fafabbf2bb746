"""What the publication says of shifts, held against the numbers of a table (arXiv 2603.22446, sections 3 and 5)."""

from dataclasses import dataclass, replace
from typing import Any

from tokenshift.analysis.thresholds import HIGH, LOW_ENTROPY, NEAR_ZERO

FEWEST = 5
"""Problems below which intervals by problem say nothing, and every verdict is left open."""

FEWEST_TOKENS = 5
"""Frequent tokens below which nothing is said of them."""

SEEN, NOT_SEEN, OPEN = "seen", "not seen", "open"


@dataclass(frozen=True)
class Statement:
    """A statement and what a table says of it.

    Attributes:
        text: the statement.
        published: its published figure.
        found: the table's, with its 95 % interval.
        verdict: `seen` or `not seen` where the whole interval of a mean is on one side, else `open`; of the frequent
            tokens more than half, of the rise twice as much as the next decides.
    """

    text: str
    published: str
    found: str
    verdict: str


def statements(group: dict[str, Any], control: dict[str, Any] | None = None) -> list[Statement]:
    """The publication's statements for one group of `summarise`.

    Args:
        group: a kind's `all`.
        control: the same of an SFT control, where there is one.
    """
    found = [
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
        found = [replace(each, verdict=OPEN, found=f"{each.found}; {few}") for each in found]
    return found


def _mean(group: dict[str, Any], name: str, label: str) -> tuple[float | None, float | None, float | None]:
    means = group["means"].get(name)
    if means is None or label not in means["labels"]:
        return None, None, None
    place = means["labels"].index(label)
    return means["value"][place], means["low"][place], means["high"][place]


def _percent(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return "no such token"
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _nats(value: float | None, low: float | None, high: float | None) -> str:
    return "none" if value is None else f"{value:.3g} [{low:.3g}, {high:.3g}]"


def _above(low: float | None, high: float | None, limit: float) -> str:
    if low is None or high is None:
        return OPEN
    return SEEN if low > limit else NOT_SEEN if high < limit else OPEN


def _share(
    group: dict[str, Any],
    name: str,
    label: str,
    text: str,
    published: str,
    least: float | None = None,
    most: float | None = None,
) -> Statement:
    value, low, high = _mean(group, name, label)
    if most is not None:
        verdict = {SEEN: NOT_SEEN, NOT_SEEN: SEEN, OPEN: OPEN}[_above(low, high, most)]
    else:
        verdict = _above(low, high, least or 0.0)
    return Statement(text, published, _percent(value, low, high), verdict)


def _control(group: dict[str, Any], control: dict[str, Any] | None) -> list[Statement]:
    if control is None:
        return []
    label = f"< {NEAR_ZERO:g}"
    ours, theirs = _mean(group, "sparsity", label), _mean(control, "sparsity", label)
    verdict = OPEN
    if ours[1] is not None and ours[2] is not None and theirs[1] is not None and theirs[2] is not None:
        verdict = SEEN if theirs[2] < ours[1] else NOT_SEEN if theirs[1] > ours[2] else OPEN
    return [Statement("An SFT shift is denser", "much denser", f"near zero {_percent(*theirs)}", verdict)]


def _positions(group: dict[str, Any]) -> list[Statement]:
    means = group["means"]["position_relative"]
    size = len(means["labels"])
    ends = {"start": (0, 1), "middle": (size // 4, 3 * size // 4), "end": (size - 1, size)}
    found: dict[str, tuple[float, float, float] | None] = {}
    for name, (first, last) in ends.items():
        there = [place for place in range(first, last) if means["value"][place] is not None]
        triple = tuple(
            sum(means[key][place] for place in there) / max(1, len(there)) for key in ("value", "low", "high")
        )
        found[name] = (triple[0], triple[1], triple[2]) if there else None
    shown = ", ".join(f"{name} {_nats(*(triple or (None,) * 3))}" for name, triple in found.items())
    middle = found["middle"]
    rows = []
    for name, text in (("start", "JS is high at the start, low in the middle"), ("end", "JS is up again at the end")):
        verdict, own = OPEN, found[name]
        if own is not None and middle is not None:
            verdict = SEEN if own[1] > middle[2] else NOT_SEEN if own[2] < middle[1] else OPEN
        rows.append(Statement(text, "a U, its end lower", f"{shown} nats", verdict))
    return rows


def _entropies(group: dict[str, Any]) -> list[Statement]:
    near, high = (_mean(group, "low_entropy_base", name) for name in ("near_zero", "high"))
    both = OPEN
    if high[1] is not None and high[2] is not None:
        both = SEEN if high[1] > 0.05 and high[2] < 0.95 else NOT_SEEN if high[2] < 0.05 or high[1] > 0.95 else OPEN
    under = f"{LOW_ENTROPY:g} nats"
    return [
        Statement(
            "Near-zero tokens are mostly of low entropy",
            "mostly",
            f"base entropy below {under} at {_percent(*near)}",
            _above(near[1], near[2], 0.5),
        ),
        Statement("High-JS tokens are of low and of high entropy", "span both", f"below at {_percent(*high)}", both),
    ]


def _identity(group: dict[str, Any]) -> Statement:
    share, count = group["identity"]["frequent_mostly_low"], len(group["identity"]["high"])
    text = f"Tokens frequent among high ones lie mostly low (median below {HIGH:g}): context decides"
    if share is None:
        return Statement(text, "yes", "no high token", OPEN)
    verdict = OPEN if count < FEWEST_TOKENS else SEEN if share > 0.5 else NOT_SEEN
    return Statement(text, "yes", f"{100 * share:.0f} % of {count} tokens", verdict)


def _rise(group: dict[str, Any]) -> Statement:
    one, two, three = (_mean(group, "overlap_high", label) for label in ("1", "2", "3"))
    if one[0] is None or two[0] is None or three[0] is None:
        return Statement("Overlap rises steeply from k = 1 to 2", "steep", "no such token", OPEN)
    first, second = two[0] - one[0], three[0] - two[0]
    found = f"by {100 * first:.1f} points from 1 to 2, by {100 * second:.1f} from 2 to 3"
    verdict = SEEN if first > 2 * second else NOT_SEEN if first < second else OPEN
    return Statement("Overlap rises steeply from k = 1 to 2, then less", "steep", found, verdict)
