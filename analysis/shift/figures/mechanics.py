"""Figures of what moved inside changed distributions: overlaps, ranks, masses and differences of a summary."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from tokenshift.analysis.figures.kit import (
    BASE,
    CHANGED,
    EVERYWHERE,
    RL,
    SINGLE,
    WIDE,
    Look,
    Numbers,
    Series,
    as_series,
    counts_text,
    dodges,
    draw_rows,
    draw_series,
    has,
    heading,
    legend,
    mean_of,
    note,
    number,
    tidy,
)
from tokenshift.analysis.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, style
from tokenshift.analysis.shift.figures.registry import register_summary_figure
from tokenshift.analysis.shift.figures.second_column import SECOND, group_name
from tokenshift.analysis.thresholds import HIGH, IMPROBABLE

PUBLISHED_OVERLAP = 80
"""Per cent, exceeded for k >= 2 over high-JS positions (arXiv 2603.22446, SimpleRL)."""


def _sets(groups: Numbers, second: Numbers | None) -> list[tuple[Numbers, str, str, Look]]:
    """The sets of positions that are compared: their group, the end of the mean's name, words and look."""
    high = f"{group_name(groups['all'])} > {HIGH:g}"
    sets = [(groups["all"], "high", high, CHANGED), (groups["all"], "all", "all positions", EVERYWHERE)]
    if second is not None:
        sets.append((second["all"], "high", f"{group_name(second['all'])} > {HIGH:g}", SECOND))
    return sets


@register_summary_figure(
    "overlap",
    caption="Mean share of tokens that the k most probable of base and of RL have in common, over {high_positions}, "
    "and over all {tokens} positions; whiskers: {interval}. Dotted: the 80 % that the publication finds exceeded for "
    "k of 2 and more at high positions (SimpleRL).{second}{measure}",
)
def overlap(groups: Numbers, title: str, second: Numbers | None = None) -> Figure:
    """Mean overlap of base's and RL's top k (%) against k, over high-JS and over all positions; 95 % whiskers."""
    with style():
        figure = Figure(figsize=SINGLE, layout="constrained")
        axes = figure.subplots()
        sets = _sets(groups, second)
        for (group, name, words, look), shift in zip(sets, dodges(len(sets), 0.12), strict=True):
            shares = mean_of(group, f"overlap_{name}") * 100
            draw_series(axes, np.arange(len(shares.labels)) + shift, shares, look, f"{words} (n = {shares.n.max():,})")
        axes.axhline(
            PUBLISHED_OVERLAP,
            color="black",
            linewidth=0.8,
            linestyle=":",
            label=f"{PUBLISHED_OVERLAP} %: exceeded for k ≥ 2 as published, JS > {HIGH:g}",
        )
        axes.set_xticks(range(len(shares.labels)), shares.labels)
        axes.set_ylim(0, 103)
        axes.set_xlabel("k")
        axes.set_ylabel("overlap of the top k, %")
        legend(figure, axes)
        heading(figure, title, counts_text(groups["all"]))
        tidy(figure)
    return figure


@register_summary_figure(
    "base_ranks",
    caption="Share of positions where RL's most probable token is among base's first ranks, over {high_positions}, "
    "and over all {tokens} positions; improbable: base gives that token less than {improbable}; whiskers and "
    "brackets: {interval}.{second}{measure}",
)
def base_ranks(groups: Numbers, title: str, second: Numbers | None = None) -> Figure:
    """Share of positions (%) where RL's top-1 token is among base's first ranks, with 95 % whiskers.

    In the legend: where base gives that token less than 0.01.
    """
    with style():
        figure = Figure(figsize=SINGLE, layout="constrained")
        axes = figure.subplots()
        sets = _sets(groups, second)
        for (group, name, words, look), shift in zip(sets, dodges(len(sets), 0.12), strict=True):
            shares = mean_of(group, f"rank_{name}") * 100
            improbable = mean_of(group, f"improbable_{name}") * 100
            label = f"{words} (n = {shares.n.max():,}){_improbable(improbable)}"
            draw_series(axes, np.arange(len(shares.labels)) + shift, shares, look, label)
        axes.set_xticks(range(len(shares.labels)), [label.removeprefix("<= ") for label in shares.labels])
        axes.set_ylim(0, 103)
        axes.set_xlabel("base's rank of RL's top-1 token, at most")
        axes.set_ylabel("% of positions")
        axes.plot([], [], linestyle="none", label=f"improbable: base's probability of it < {IMPROBABLE:g}; [95 %]")
        legend(figure, axes)
        heading(figure, title, counts_text(groups["all"]))
        tidy(figure)
    return figure


def _improbable(share: Series) -> str:
    """The share with its interval, nothing for a share of nothing."""
    if not np.isfinite(share.value[0]):
        return ""
    ends = f" [{share.low[0]:.2g}, {share.high[0]:.2g}]" if np.isfinite(share.low[0]) else ""
    return f"; {share.value[0]:.2g} %{ends} improbable"


def _has_masses(groups: Numbers) -> bool:
    """Whether masses were measured, and some position is high."""
    return has(groups["all"], "mass_base_high", "mass_rl_high", "mass_moved_high")


@register_summary_figure(
    "mass_moved",
    caption="Mean probability of the tokens of each rank under base, as base and as RL give it, and the change from "
    "base to RL, over {high_positions} ({tokens} tokens in all); whiskers: {interval}.{measure}",
    drawable=_has_masses,
)
def mass_moved(groups: Numbers, title: str) -> Figure:
    """Mean probability by base's rank under base and RL over high-JS positions, and its change; 95 % whiskers."""
    with style():
        figure = Figure(figsize=WIDE, layout="constrained")
        left, right = figure.subplots(1, 2)
        for name, label, look, shift in (("base", "base", BASE, -0.1), ("rl", "RL", RL, 0.1)):
            masses = mean_of(groups["all"], f"mass_{name}_high")
            draw_series(left, np.arange(len(masses.labels)) + shift, masses, look, label)
        moved = mean_of(groups["all"], "mass_moved_high")
        draw_series(right, np.arange(len(moved.labels)), moved, CHANGED, joined=False)
        left.set_ylim(bottom=0)
        left.set_ylabel("mean probability")
        right.set_ylabel("change of probability, RL - base")
        for axes in (left, right):
            axes.set_xticks(range(len(moved.labels)), moved.labels)
            axes.set_xlim(-0.5, len(moved.labels) - 0.5)
            axes.set_xlabel("rank under base")
            if not moved.n.any():
                note(axes, f"no position with JS > {HIGH:g}")
        if moved.n.any():
            right.axhline(0, color=GREY, linewidth=0.8)
            legend(figure, left)
        high = f"n = {moved.n.max():,} positions with JS > {HIGH:g} of {groups['all']['tokens']:,} tokens"
        heading(figure, title, high)
        tidy(figure)
    return figure


_FAMILIES = {
    "sparsity": ("share with JS {}", Look(BLUE, "o")),
    "overlap_high": ("overlap of top {}", Look(ORANGE, "s")),
    "rank_high": ("RL's top-1, base rank {}", Look(GREEN, "^")),
    "improbable_high": ("RL's top-1, base prob. {}", Look(PURPLE, "D")),
    "mean": ("mean {}", Look(BLUE, "o")),
}
_MEANS = {
    "js_top_p": "JS, truncated",
    "js": "JS, full",
    "forward_kl": "KL(base‖RL)",
    "reverse_kl": "KL(RL‖base)",
    "entropy_base": "entropy of base",
    "entropy_rl": "entropy of RL",
}


def _has_differences(groups: Numbers) -> bool:
    return "correct_minus_incorrect" in groups


@register_summary_figure(
    "correct_minus_incorrect",
    caption="Differences, correct minus incorrect responses: shares in percentage points, means in nats; overlaps, "
    "ranks and probabilities over positions with JS > {high} (the publication's threshold; near zero, {near_zero}, is "
    "this project's); {n}; whiskers: {interval}.{measure}",
    drawable=_has_differences,
)
def correct_minus_incorrect(groups: Numbers, title: str) -> Figure:
    """Differences between correct and incorrect responses: shares (percentage points) and means (nats), 95 % whiskers.

    Overlap, rank and improbable are over high-JS positions.

    Raises:
        ValueError: if the summary has no such differences.
    """
    if not _has_differences(groups):
        raise ValueError("The summary has no 'correct_minus_incorrect': it needs responses of both sorts.")
    differences = {name: as_series(listed) for name, listed in groups["correct_minus_incorrect"].items()}
    with style():
        figure = Figure(figsize=(7.0, 4.2), layout=ConstrainedLayoutEngine(wspace=0.06))
        grid = figure.add_gridspec(2, 2, height_ratios=[2, 4])
        left, top, bottom = (figure.add_subplot(grid[cell]) for cell in ((slice(None), 0), (0, 1), (1, 1)))
        shares = ("sparsity", "overlap_high", "rank_high", "improbable_high")
        _forest(left, {name: differences[name] * 100 for name in shares if name in differences})
        left.set_xlabel("correct - incorrect, percentage points")
        means = differences["mean"]
        truncated = np.array([label.startswith("js") for label in means.labels])  # JS is small beside KL
        for axes, chosen in ((top, means[truncated]), (bottom, means[~truncated])):
            _forest(axes, {"mean": chosen})
            axes.set_xlabel("correct - incorrect, nats")
        heading(figure, title, _both_counts(groups))
        tidy(figure)
    return figure


def _forest(axes: Axes, differences: dict[str, Series]) -> None:
    names: list[str] = []
    for family, series in differences.items():
        words, look = _FAMILIES[family]
        draw_rows(axes, np.arange(len(series.labels)) + len(names), series, look)
        names += [words.format(_words(label)) for label in series.labels]
        if len(names) > len(series.labels):
            axes.axhline(len(names) - len(series.labels) - 0.5, color=GREY, linewidth=0.4, linestyle=":")
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=5)


def _words(label: str) -> str:
    sign, _, limit = label.partition(" ")
    return f"{sign.replace('<=', '≤')} {number(float(limit))}" if limit else _MEANS.get(label, label)


def _both_counts(groups: Numbers) -> str:
    def count(name: str) -> str:
        group = groups[name]
        high = group["means"].get("overlap_high", {"n": [0]})["n"][0]
        return f"{group['tokens']:,} {name} tokens ({high:,} with JS > {HIGH:g})"

    return f"n = {count('correct')}, {count('incorrect')}"
