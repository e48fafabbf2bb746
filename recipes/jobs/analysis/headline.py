"""The headline numbers of each analysis for trackers, by name: shares from 0 to 1, divergences in nats."""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenshift.analysis.cross_sampling.figures import curve_name
from tokenshift.analysis.shift.summary import group_estimate
from tokenshift.analysis.thresholds import HIGH, NEAR_ZERO
from tokenshift.recipes.command_line.tracking import with_ends

SHIFT = {
    "accuracy": ("response", "accuracy"),
    "length": ("response", "length"),
    "frac_near_zero": ("sparsity", f"< {NEAR_ZERO:g}"),
    "frac_high": ("sparsity", f"> {HIGH:g}"),
    "js": ("mean", "js"),
    "js_top_p": ("mean", "js_top_p"),
    "high_rl_top1_in_base_top3": ("rank_high", "<= 3"),
}
"""Numbers of a shift analysis: name -> where in a group's means it is."""

ROBUSTNESS = {
    "accuracy": "accuracy",
    "frac_near_zero": "near_zero",
    "frac_high": "high",
    "high_rl_top1_in_base_top3": "rank_3",
}
"""Numbers of a setting of a robustness analysis: name, as in `SHIFT` -> the key of a row of `robustness_row`."""

Numbers = dict[str, float | None]


def shift_numbers(kinds: Mapping[str, Mapping[str, Any]]) -> Numbers:
    """Headline numbers of a shift analysis by its measure, named `KIND/NAME`.

    Args:
        kinds: Groups of `summarise` by kind of trajectory.
    """
    numbers: Numbers = {}
    for kind, groups in kinds.items():
        for name, place in SHIFT.items():
            numbers |= with_ends(f"{kind}/{name}", group_estimate(groups["all"], *place))
    return numbers


def checkpoint_numbers(row: Mapping[str, Any]) -> Numbers:
    """Headline numbers of one checkpoint of an evolution, by its measure.

    Args:
        row: A row of `evolution_rows`.
    """
    numbers = with_ends("accuracy", row["accuracy"])
    for name, key in (("frac_near_zero", "near_zero"), ("frac_high", "high"), ("jaccard_final", "jaccard_final")):
        numbers |= with_ends(name, row[key])
    for name, entry in row["quantiles"].items():
        numbers |= with_ends(f"quantile_{name}", entry)
    return numbers


def robustness_numbers(rows: Sequence[Mapping[str, Any]]) -> Numbers:
    """Headline numbers of a robustness analysis, named `KIND/temperature_T/top_p_P/NAME`.

    Of whole distributions `whole` stands in place of `top_p_P`.

    Args:
        rows: The rows of `robustness_row`, one per setting.
    """
    numbers: Numbers = {}
    for row in rows:
        truncation = "whole" if row["top_p"] == 1 else f"top_p_{row['top_p']:g}"
        setting = f"{row['trajectories']}/temperature_{row['temperature']:g}/{truncation}"
        for name, key in ROBUSTNESS.items():
            numbers |= with_ends(f"{setting}/{name}", row[key])
    return numbers


def cross_numbers(summary: Mapping[str, Any]) -> Numbers:
    """Headline numbers of a cross-sampling: both accuracies, the gain, and the tokens that 50 and 90 % of it need.

    Args:
        summary: The numbers of `recovery_summary`.
    """
    numbers: Numbers = {}
    for name, entry in summary["levels"].items():
        numbers |= with_ends(name, entry)
    for curve in summary["curves"]:
        for level, needed in curve["needed"]["effective"].items():
            numbers |= with_ends(f"{curve['direction']}/{curve_name(curve)}/tokens_for_{level}", needed)
    return numbers


def evaluation_numbers(summary: Mapping[str, Any]) -> Numbers:
    """Headline numbers of an evaluation, named `SET/A/METRIC`.

    Of two models the second is `B`, and `SET/difference/METRIC` is A - B.

    Args:
        summary: The numbers of `evaluation_summary`.
    """
    numbers: Numbers = {}
    for set_name, group in summary["groups"].items():
        for letter, model in zip("AB", summary["models"], strict=False):
            for metric in summary["metrics"]:
                numbers |= with_ends(f"{set_name}/{letter}/{metric}", group["models"][model][metric])
        for metric, compared in group.get("comparison", {}).items():
            entry = {**compared, "value": compared.get("difference")}
            numbers |= with_ends(f"{set_name}/difference/{metric}", entry)
    return numbers
