"""All figures of a summary's numbers, each with its caption."""

from collections.abc import Callable

from matplotlib.figure import Figure

from tokenshift.analysis.figures.kit import Numbers, counts_text, has
from tokenshift.analysis.shift.figures.characterisation import (
    distance_positions,
    entropy_by_js,
    joint_histogram,
    quantile_curve,
    relative_position,
    sparsity,
    token_identity,
)
from tokenshift.analysis.shift.figures.mechanics import base_ranks, correct_minus_incorrect, mass_moved, overlap
from tokenshift.analysis.thresholds import HIGH, IMPROBABLE, NEAR_ZERO


def summary_figures(groups: Numbers, title: str, control: Numbers | None = None) -> dict[str, tuple[Figure, str]]:
    """Every figure that the numbers allow, by file name, with a caption in plain text.

    Args:
        groups: one kind of trajectory's of `summarise`.
        title: of every figure.
        control: groups of another summary, drawn dashed in the first two.
    """
    group = groups["all"]
    drawn: dict[str, Callable[[], Figure]] = {
        "quantile_curve": lambda: quantile_curve(groups, title, control),
        "sparsity": lambda: sparsity(groups, title, control),
        "relative_position": lambda: relative_position(groups, title),
        "distance_positions": lambda: distance_positions(groups, title),
        "entropy_by_js": lambda: entropy_by_js(groups, title),
        "joint_histogram": lambda: joint_histogram(groups, title),
        "token_identity": lambda: token_identity(groups, title),
        "overlap": lambda: overlap(groups, title),
        "base_ranks": lambda: base_ranks(groups, title),
        "mass_moved": lambda: mass_moved(groups, title),
        "correct_minus_incorrect": lambda: correct_minus_incorrect(groups, title),
    }
    if not has(group, "mass_base_high", "mass_rl_high", "mass_moved_high"):  # not measured, or nothing is high
        del drawn["mass_moved"]
    if "correct_minus_incorrect" not in groups:
        del drawn["correct_minus_incorrect"]
    captions = _captions(groups, control)
    return {name: (draw(), captions[name]) for name, draw in drawn.items()}


def _captions(groups: Numbers, control: Numbers | None) -> dict[str, str]:
    group = groups["all"]
    n = counts_text(group)
    interval = f"95 % bootstrap intervals, resampled by problem ({group['problems']:,})"
    if group["problems"] < 2:
        interval = "95 % bootstrap intervals by problem, which have no meaning here, with a single problem"
    near_zero = f"near zero: JS < {NEAR_ZERO:g}, this project's value"
    high = f"high: JS > {HIGH:g}, the publication's value"
    thresholds = f"{near_zero[0].upper()}{near_zero[1:]}; {high}."
    dashed = f" Dashed: all responses of the control, n = {control['all']['tokens']:,} tokens." if control else ""
    highs = group["means"].get("overlap_high", {"n": [0]})["n"][0]
    of_high = f"{highs:,} positions with JS > {HIGH:g}, the publication's threshold"
    return {
        "quantile_curve": f"JS between base and RL in nats that a share of the tokens reaches, {n}; bands: {interval}."
        f" {thresholds}{dashed}",
        "sparsity": f"Share of tokens whose JS in nats lies below each threshold, {n}; whiskers: {interval}."
        f" {thresholds}{dashed}",
        "relative_position": f"Mean JS in nats, and share of tokens above {HIGH:g} (the publication's threshold), by "
        f"position relative to the response's length, {n}; whiskers: {interval}.",
        "distance_positions": "Mean JS in nats by distance in tokens from the response's start, its end, and the "
        f"begin of its final answer (negative: before it), {n}; whiskers: {interval}.",
        "entropy_by_js": f"Mean entropy of base and RL in nats over the tokens of each bin of JS, {n}; whiskers: "
        f"{interval}. {thresholds}",
        "joint_histogram": f"Number of tokens by JS and by entropy of base and of RL, in nats, {n}. {thresholds}",
        "token_identity": "JS in nats of all occurrences of the tokens most frequent among high and among near-zero "
        "positions: median, quartiles (thick) and 5th to 95th percentile (thin), which are no confidence intervals; "
        f"{n}. {thresholds}",
        "overlap": f"Mean share of tokens that the k most probable of base and of RL have in common, over {of_high}, "
        f"and over all {group['tokens']:,} positions; whiskers: {interval}. Dotted: the 80 % that the publication "
        "finds exceeded for k of 2 and more at high positions (SimpleRL).",
        "base_ranks": f"Share of positions where RL's most probable token is among base's first ranks, over "
        f"{of_high}, and over all {group['tokens']:,} positions; improbable: base gives that token less than "
        f"{IMPROBABLE:g}; whiskers and brackets: {interval}.",
        "mass_moved": "Mean probability of the tokens of each rank under base, as base and as RL give it, and the "
        f"change from base to RL, over {of_high} ({group['tokens']:,} tokens in all); whiskers: {interval}.",
        "correct_minus_incorrect": "Differences, correct minus incorrect responses: shares in percentage points, "
        f"means in nats; overlaps, ranks and probabilities over positions with JS > {HIGH:g} (the publication's "
        f"threshold; near zero, {NEAR_ZERO:g}, is this project's); {n}; whiskers: {interval}.",
    }
