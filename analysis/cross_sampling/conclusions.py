"""The numbers that sum up a cross-sampling, each with its interval and a sentence: what a reader sees first."""

from collections.abc import Mapping
from typing import Any

from tokenshift.analysis.cross_sampling.figures import curve_name
from tokenshift.analysis.cross_sampling.recovery import ENOUGH, REFERENCES
from tokenshift.analysis.report.conclusions import Conclusion, percent_range, points_conclusion, share_conclusion
from tokenshift.analysis.report.numbers import PERCENT

CONTROLS = ("random_disagreement", "random")
"""Criteria that choose at random, the one that counts first."""

NOT_REACHED = "not reached"
"""The text of an amount of tokens at which a recovery is not reached."""

WORDS = {
    "forward": ("RL model's", "base model's", "bring {level:.0f} % of the gain", "of the gain comes back"),
    "backward": ("base model's", "RL model's", "take {level:.0f} % of the gain away", "of the gain is gone"),
}
"""Direction -> words for whose tokens are put into whose responses, and what they change."""


def cross_conclusions(summary: Mapping[str, Any]) -> list[Conclusion]:
    """The conclusions of a cross-sampling: the gain, the tokens that nearly all of it needs, and the control.

    What cannot be said of the data is left out: without a gain there is no recovery, without a budget at which both
    criteria ran there is no control.

    Args:
        summary: The numbers of `recovery_summary`.
    """
    found = [_gain(summary)]
    if summary["defined"]:
        curves = {direction: _curve(summary, direction) for direction in WORDS}
        found += [_needed(summary, curve) for curve in curves.values() if curve is not None]
        first = next((curve for curve in curves.values() if curve is not None), None)
        found.append(None if first is None else _control(summary, first))
    return [conclusion for conclusion in found if conclusion is not None]


def _gain(summary: Mapping[str, Any]) -> Conclusion | None:
    levels = summary["levels"]
    gain, base, rl = (levels[name] for name in ("gain", "base", "rl"))
    if gain is None or base is None or rl is None:
        return None
    end = "." if summary["defined"] else "; its interval does not lie above 0, so there is nothing to recover."
    return points_conclusion(
        gain["value"],
        gain["low"],
        gain["high"],
        f"is RL's gain: {PERCENT * rl['value']:.1f} % of its responses to {summary['problems']:,} problems are "
        f"correct, {PERCENT * base['value']:.1f} % of the base model's{end}",
    )


def _plain(one: Mapping[str, Any], direction: str) -> bool:
    """Whether a curve or a policy belongs to a direction and uses no cap, extrapolation or sharpening."""
    return one["direction"] == direction and one["most"] is None and not one["gamma"] and one["sharpening"] is None


def _curve(summary: Mapping[str, Any], direction: str) -> Mapping[str, Any] | None:
    """The curve that sums up a direction: that of the first of `REFERENCES`, else the first that is not a control."""
    curves = [curve for curve in summary["curves"] if _plain(curve, direction) and curve["criterion"] not in CONTROLS]
    by_name = {curve["criterion"]: curve for curve in reversed(curves)}
    return next((by_name[name] for name in REFERENCES if name in by_name), curves[0] if curves else None)


def _needed(summary: Mapping[str, Any], curve: Mapping[str, Any]) -> Conclusion | None:
    """The fewest effective replacements for nearly all of the gain, or the most that is recovered."""
    whose, into, does, part = WORDS[curve["direction"]]
    needed = curve["needed"]["effective"]["90"]
    if needed is not None and needed["value"] is not None:
        interval = percent_range(needed, ".2g", NOT_REACHED)
        sentence = (
            f"of the tokens in the {into} responses, replaced by the {whose} where {curve_name(curve)} is highest, "
            f"{does.format(level=PERCENT * ENOUGH)}."
        )
        return Conclusion(f"{PERCENT * needed['value']:.2g} %", interval, sentence)
    cells = [cell for cell in _cells(summary, curve["direction"], curve["criterion"]) if cell["recovery"] is not None]
    if not cells:
        return None
    best = max(cells, key=lambda cell: cell["recovery"]["value"])
    sentence = (
        f"{part} at most, with {PERCENT * best['effective']['value']:.2g} % of the tokens in the {into} responses "
        f"replaced by the {whose} where {curve_name(curve)} is highest."
    )
    return share_conclusion(best["recovery"], sentence)


def _cells(summary: Mapping[str, Any], direction: str, criterion: str) -> list[Mapping[str, Any]]:
    return [cell for cell in summary["cells"] if _plain(cell, direction) and cell["criterion"] == criterion]


def _control(summary: Mapping[str, Any], curve: Mapping[str, Any]) -> Conclusion | None:
    """The conclusion on the control: the share of the gain that replacing as many random tokens recovers.

    It is taken at the budget where the criterion recovers most, the smallest one if several do.
    """
    direction = curve["direction"]
    part = WORDS[direction][-1]
    chosen = [cell for cell in _cells(summary, direction, curve["criterion"]) if cell["recovery"] is not None]
    for name in CONTROLS:
        controls = {cell["budget"]: cell for cell in _cells(summary, direction, name) if cell["recovery"] is not None}
        matched = [cell for cell in chosen if cell["budget"] is not None and cell["budget"] in controls]
        if matched:
            best = max(matched, key=lambda cell: (cell["recovery"]["value"], -cell["budget"]))
            control, recovery = controls[best["budget"]], best["recovery"]
            where = "random positions where the two would write different tokens" if name == CONTROLS[0] else name
            sentence = (
                f"{part} with {PERCENT * control['effective']['value']:.2g} % of tokens replaced at {where}; "
                f"{PERCENT * recovery['value']:.1f} % ({percent_range(recovery)}) with "
                f"{PERCENT * best['effective']['value']:.2g} % where {curve_name(curve)} is highest."
            )
            return share_conclusion(
                control["recovery"], sentence.replace(f"at {CONTROLS[1]};", "at random positions;")
            )
    return None
