"""Five numbers that sum up a shift analysis, each with its interval and a sentence: what a reader sees first."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tokenshift.analysis.report.conclusions import Conclusion, percent_range, share_conclusion
from tokenshift.analysis.report.numbers import PERCENT
from tokenshift.analysis.report.page import visible
from tokenshift.analysis.report.statements import SEEN, within
from tokenshift.analysis.shift.claims import position_averages
from tokenshift.analysis.shift.summary import group_estimate
from tokenshift.analysis.thresholds import HIGH, NEAR_ZERO
from tokenshift.analysis.token_table.measure import DEFAULT_MEASURE, measure_name

MOSTLY = 0.5
"""A share whose whole interval lies above this is said to be of most tokens."""

POLICIES = {"rl": "RL model", "base": "base model"}
"""The words for the policies that wrote the responses."""


ALIKE = "all problems alike"
"""Stands for the interval of a share that is 0 or 1 in every problem, of which resampled problems cannot tell."""


def shift_conclusions(kinds: Mapping[str, Mapping[str, Any]]) -> list[Conclusion]:
    """The conclusions of an analysis: accuracy, near-zero tokens, high tokens, where they stand, and what is in them.

    What cannot be said of the data, such as the accuracy of responses that nobody judged, is left out.

    Args:
        kinds: Groups of `summarise` by kind of trajectory. All numbers but accuracies are of the first kind.
    """
    group = next(iter(kinds.values()))["all"]
    measure = measure_name(group.get("measure", DEFAULT_MEASURE), group.get("top_p"))
    found = [_accuracy(kinds), *_sparsity(group, measure), _place(group), _candidates(group)]
    return [conclusion for conclusion in found if conclusion is not None]


def _range(share: Mapping[str, float | None]) -> str:
    """The interval of a share as text."""
    return ALIKE if share["low"] == share["high"] in (0.0, 1.0) else percent_range(share)


def _share(share: Mapping[str, float | None], sentence: str) -> Conclusion:
    return replace(share_conclusion(share, sentence), interval=_range(share))


def _accuracy(kinds: Mapping[str, Mapping[str, Any]]) -> Conclusion | None:
    found = {}
    for kind, groups in kinds.items():
        estimate = group_estimate(groups["all"], "response", "accuracy")
        if estimate is not None and estimate["value"] is not None:
            found[kind] = estimate
    if not found:
        return None
    kind = next(iter(found))
    count = f"{kinds[kind]['all']['problems']:,} problems"
    words = f"of the {POLICIES[kind]}'s responses" if kind in POLICIES else "of the responses"
    sentence = f"{words} to {count} are correct"
    if kind == "rl" and "base" in found:
        base = found["base"]
        interval = "" if base["low"] is None else f" ({_range(base)})"
        sentence += f"; of the base model's {PERCENT * base['value']:.1f} %{interval}"
    return _share(found[kind], f"{sentence}.")


def _sparsity(group: Mapping[str, Any], measure: str) -> list[Conclusion]:
    found = []
    if (near := group_estimate(group, "sparsity", f"< {NEAR_ZERO:g}")) is not None and near["value"] is not None:
        sentence = f"of {group['tokens']:,} tokens are near zero ({measure} below {NEAR_ZERO:g} nats): there the two \
models' next-token distributions are nearly the same."
        found.append(_share(near, sentence))
    if (high := group_estimate(group, "sparsity", f"> {HIGH:g}")) is not None and high["value"] is not None:
        each = group_estimate(group, "response", "high tokens")
        often = "" if each is None or each["value"] is None else f", {each['value']:.3g} in a response on average"
        found.append(_share(high, f"of tokens are high (above {HIGH:g} nats){often}."))
    return found


def _place(group: Mapping[str, Any]) -> Conclusion | None:
    """JS at the start of a response against that in its middle, and the token that is high most often."""
    if "position_relative" not in group["means"]:
        return None
    start, middle, end = position_averages(group).values()
    if start is None or middle is None or end is None:
        return None
    bins = len(group["means"]["position_relative"]["labels"])
    sentence = f"is the mean JS in the first {PERCENT / bins:.0f} % of a response; \
it is {middle['value']:#.2g} in the middle and {end['value']:#.2g} at the end"
    if frequent := group["identity"]["high"]:
        token = frequent[0]
        sentence += f". High most often is the token “{visible(token['token'])}”, {token['n_high']:,} times"
    interval = f"{start['low']:#.2g} to {start['high']:#.2g}"
    return Conclusion(f"{start['value']:#.2g} nats", interval, f"{sentence}.")


def _candidates(group: Mapping[str, Any]) -> Conclusion | None:
    within_three = group_estimate(group, "rank_high", "<= 3")
    if within_three is None or within_three["value"] is None:
        return None
    sentence = "of high tokens have the RL model's first choice among the base's first three"
    if within(within_three, above=MOSTLY) == SEEN:
        sentence += ": RL mostly re-ranks candidates that the base already has"
    elif within(within_three, below=MOSTLY) == SEEN:
        sentence += ": RL mostly brings in tokens that the base ranks low"
    return _share(within_three, f"{sentence}.")
