"""Which distributions moved: figures of a summary's quantiles, sparsity, positions, entropies and tokens."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from tokenshift.analysis.figures.kit import (
    BASE,
    CONTROL,
    LOOKS,
    RL,
    SINGLE,
    WIDE,
    Look,
    Numbers,
    Series,
    as_series,
    compact,
    counts_text,
    dodges,
    draw_series,
    heading,
    js_axis,
    js_floor,
    legend,
    mark_thresholds,
    mean_of,
    note,
    number,
    percent_axis,
    present,
    tidy,
    token_label,
)
from tokenshift.analysis.figures.style import BLUE, GREY, ORANGE, style
from tokenshift.analysis.shift.figures.joint_map import draw_joint_map, filled_rows
from tokenshift.analysis.shift.figures.registry import register_summary_figure
from tokenshift.analysis.shift.figures.second_column import SECOND, exact_zero_share, group_label, second_label
from tokenshift.analysis.thresholds import HIGH, JS_EDGES, NEAR_ZERO

NOISE = 1e-6
"""Nats; JS axes are linear below it: float32 tells much smaller divergences from zero only by chance."""

TOKENS = 15
"""Number of tokens in each panel of `token_identity`."""


def _compared(groups: Numbers, control: Numbers | None) -> list[tuple[str, Numbers, Look]]:
    """All, correct and incorrect responses of a summary, and all of the control's."""
    compared = [(name, group, LOOKS[name]) for name, group in present(groups).items()]
    return [*compared, *([("control", control["all"], CONTROL)] if control else [])]


@register_summary_figure(
    "quantile_curve",
    caption="JS between base and RL in nats that a share of the tokens reaches, {n}; bands: {interval}. "
    "{thresholds}{dashed}{zeros}{second}{measure}",
)
def quantile_curve(
    groups: Numbers, title: str, control: Numbers | None = None, second: Numbers | None = None
) -> Figure:
    """JS (nats) that a share of the tokens (%, log axis, the tail at the right) reaches, with 95 % bands.

    Args:
        groups: the groups of one kind of trajectory, from `summarise`.
        title: title of the figure.
        control: groups of another summary (a model after SFT, say), of which all responses are drawn, dashed.
        second: the groups by the other measure, of which all responses are drawn, thin.
    """
    with style():
        figure = Figure(figsize=SINGLE, layout="constrained")
        axes = figure.subplots()
        for name, group, look in _compared(groups, control):
            curve = as_series(group["quantiles"])
            above = 1 - np.array(curve.labels, dtype=float)
            curve, above = curve[above > 0], above[above > 0]  # a log axis has no place for the maximum
            axes.fill_between(100 * above, curve.low, curve.high, color=look.color, alpha=0.2, linewidth=0)
            axes.plot(
                100 * above,
                curve.value,
                color=look.color,
                linestyle=look.line,
                linewidth=1.2,
                marker=look.marker,
                markersize=3,
                label=f"{name} (n = {group['tokens']:,})",
            )
        if second is not None:
            curve = as_series(second["all"]["quantiles"])
            above = 1 - np.array(curve.labels, dtype=float)
            label = second_label(second["all"])
            axes.plot(
                100 * above[above > 0], curve.value[above > 0], color=SECOND.color, linestyle=SECOND.line, label=label
            )
        zero = exact_zero_share(groups["all"])
        if zero is not None and zero < 1:
            label = f"left of it exactly 0: {100 * zero:.1f} % of all"
            axes.axvline(100 * (1 - zero), color=GREY, linewidth=0.8, linestyle=":", label=label)
        axes.set_xscale("log")
        axes.set_xlim(100, 0.09)
        axes.set_xticks([100, 50, 20, 10, 5, 2, 1, 0.5, 0.1], ["100", "50", "20", "10", "5", "2", "1", "0.5", "0.1"])
        js_axis(axes, "y", NOISE)
        mark_thresholds(axes, "y")
        axes.set_xlabel("% of tokens with at least this JS")
        axes.set_ylabel(group_label(groups["all"]))
        legend(figure, axes)
        heading(figure, title, counts_text(groups["all"]))
        tidy(figure)
    return figure


@register_summary_figure(
    "sparsity",
    caption="Share of tokens whose JS in nats lies below each threshold, {n}; whiskers: {interval}. "
    "{thresholds}{dashed}{zeros}{second}{measure}",
)
def sparsity(groups: Numbers, title: str, control: Numbers | None = None, second: Numbers | None = None) -> Figure:
    """Share of tokens (%) with a JS below each threshold (nats), with 95 % whiskers.

    Args:
        groups: the groups of one kind of trajectory, from `summarise`.
        title: title of the figure.
        control: groups of another summary, of which all responses are drawn, dashed.
        second: the groups by the other measure, of which all responses are drawn, thin.
    """
    with style():
        figure = Figure(figsize=SINGLE, layout="constrained")
        axes = figure.subplots()
        compared = _compared(groups, control)
        lowest = 100.0
        for (name, group, look), shift in zip(compared, dodges(len(compared), 0.12), strict=True):
            shares = mean_of(group, "sparsity") * 100
            below = shares[np.array([label.startswith("<") for label in shares.labels])]
            label = f"{name} (n = {group['tokens']:,})"
            draw_series(axes, np.arange(len(below.labels)) + shift, below, look, label)
            lowest = min(lowest, np.nanmin(np.concatenate([below.value, below.low])))
        if second is not None:
            shares = mean_of(second["all"], "sparsity") * 100
            other = shares[np.array([label.startswith("<") for label in shares.labels])]
            draw_series(axes, np.arange(len(other.labels)), other, SECOND, second_label(second["all"]))
            lowest = min(lowest, np.nanmin(np.concatenate([other.value, other.low])))
        zero = exact_zero_share(groups["all"])
        if zero is not None:
            label = f"exactly 0: {100 * zero:.1f} % of all"
            axes.axhline(100 * zero, color=GREY, linewidth=0.8, linestyle=":", label=label)
        names = {NEAR_ZERO: "\nnear zero", HIGH: "\nnot high"}
        limits = [float(label.removeprefix("< ")) for label in below.labels]
        ticks = [number(limit) + names.get(limit, "") for limit in limits]
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set_ylim(max(0, 10 * np.floor((lowest - 1) / 10)), 101)
        axes.set_xlabel(f"threshold of {group_label(groups['all'])}")
        axes.set_ylabel("% of tokens below")
        legend(figure, axes)
        heading(figure, title, counts_text(groups["all"]))
        tidy(figure)
    return figure


@register_summary_figure(
    "relative_position",
    caption="Mean JS in nats, and share of tokens above {high} (the publication's threshold), by position relative to "
    "the response's length, {n}; whiskers: {interval}.{second}{measure}",
)
def relative_position(groups: Numbers, title: str, second: Numbers | None = None) -> Figure:
    """Mean JS (nats), and share of tokens above 0.1 (%), by position over the response's length; 95 % whiskers."""
    with style():
        figure = Figure(figsize=WIDE, layout="constrained")
        left, right = figure.subplots(1, 2)
        compared = [
            (f"{name} (n = {group['tokens']:,})", group, LOOKS[name]) for name, group in present(groups).items()
        ]
        if second is not None:
            compared.append((second_label(second["all"]), second["all"], SECOND))
        drawn: list[tuple[Series, Series]] = []
        for (name, group, look), shift in zip(compared, dodges(len(compared), 0.2), strict=True):
            means, shares = mean_of(group, "position_relative"), mean_of(group, "position_relative_high") * 100
            width = 1 / len(means.labels)
            middle = (np.arange(len(means.labels)) + 0.5 + shift) * width
            draw_series(left, middle, means, look, name)
            draw_series(right, middle, shares, look)
            drawn.append((means, shares))
        floor = js_floor([means for means, _ in drawn], NEAR_ZERO / 10)
        js_axis(left, "y", floor, max(means.top for means, _ in drawn))
        percent_axis(right, max(shares.top for _, shares in drawn))
        left.set_ylabel(f"mean {group_label(groups['all'])}")
        right.set_ylabel(f"% of tokens with JS > {HIGH:g}")
        for axes in (left, right):
            axes.set_xlim(0, 1)
            axes.set_xlabel("position / response length")
        legend(figure, left)
        heading(figure, title, counts_text(groups["all"]))
        tidy(figure)
    return figure


@register_summary_figure(
    "distance_positions",
    caption="Mean JS in nats by distance in tokens from the response's start, its end, and the begin of its final "
    "answer (negative: before it), {n}; whiskers: {interval}.{measure}",
)
def distance_positions(groups: Numbers, title: str) -> Figure:
    """Mean JS (nats) by distance in tokens from the start, the end and the final answer's begin; 95 % whiskers."""
    with style():
        figure = Figure(figsize=WIDE, layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        origins = ("from_start", "from_end", "from_answer")
        profiles = [_with_terms(mean_of(groups["all"], f"position_{name}")) for name in origins]
        for axes, name, means in zip(panels, origins, profiles, strict=True):
            if len(means.labels):
                draw_series(axes, np.arange(len(means.labels)), means, LOOKS["all"])
            else:
                note(axes, "no final answer found" if name == "from_answer" else "no tokens")
            axes.set_xticks(range(len(means.labels)), means.labels, rotation=90)
            axes.set_title(f"n = {means.n.sum():,} tokens", fontsize=8, pad=14)
        js_axis(panels[0], "y", js_floor(profiles, NEAR_ZERO / 100), max(means.top for means in profiles))
        panels[1].invert_xaxis()  # the end is at the right
        if "0" in profiles[2].labels:
            begin = profiles[2].labels.index("0") - 0.5
            panels[2].axvline(begin, color=GREY, linewidth=0.8, linestyle=":")
            panels[2].text(
                begin,
                1.01,
                "answer begins",
                transform=panels[2].get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize=6.5,
                color=GREY,
            )
        panels[0].set_ylabel(f"mean {group_label(groups['all'])}")
        panels[0].set_xlabel("tokens after the first")
        panels[1].set_xlabel("tokens before the last")
        panels[2].set_xlabel("tokens after the answer's begin")
        heading(figure, title, counts_text(groups["all"]))
        tidy(figure)
        for axes in panels:
            axes.tick_params(axis="x", labelsize=6.5)
    return figure


def _with_terms(series: Series) -> Series:
    """Without the empty bins at both ends."""
    filled = np.flatnonzero(series.n)
    return series[filled[0] : filled[-1] + 1] if len(filled) else series[:0]


@register_summary_figure(
    "entropy_by_js",
    caption="Mean entropy of base and RL in nats over the tokens of each bin of JS, {n}; whiskers: {interval}. "
    "{thresholds}{zeros}{measure}",
)
def entropy_by_js(groups: Numbers, title: str) -> Figure:
    """Mean entropy (nats) of base and RL over the tokens of each bin of JS, with 95 % whiskers and each bin's n."""
    with style():
        figure = Figure(figsize=SINGLE, layout="constrained")
        axes = figure.subplots()
        for name, label, look, shift in (("base", "base", BASE, -0.08), ("rl", "RL", RL, 0.08)):
            means = mean_of(groups["all"], f"entropy_{name}")
            draw_series(axes, np.arange(len(means.labels)) + shift, means, look, label, joined=False)
        edges = ["0", *(f"{edge:g}" for edge in JS_EDGES), "ln 2"]
        ticks = [
            f"{label.replace('_', ' ')}\n{edges[bin_]} to {edges[bin_ + 1]}\nn = {means.n[bin_]:,}"
            for bin_, label in enumerate(means.labels)
        ]
        zero = exact_zero_share(groups["all"])
        if zero is not None:
            ticks[0] += f"\nexactly 0: {round(zero * groups['all']['tokens']):,}"
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set_xlim(-0.5, len(ticks) - 0.5)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"{group_label(groups['all'])}; n: tokens")
        axes.set_ylabel("mean entropy, nats")
        legend(figure, axes)
        heading(figure, title, counts_text(groups["all"]))
        tidy(figure)
    return figure


@register_summary_figure(
    "joint_histogram",
    caption="Number of tokens by JS and by entropy of base and of RL, in nats, {n}. {thresholds}{zeros}{measure}",
)
def joint_histogram(groups: Numbers, title: str) -> Figure:
    """Number of tokens (log colour) by JS and entropy of base, and of RL, both in nats; JS below 1e-7 at the left."""
    joint: dict[str, Any] = groups["all"]["joint"]
    counts = [np.array(joint[name]) for name in ("entropy_base", "entropy_rl")]
    js_edges, entropy_edges = np.array(joint["js_edges"]), np.array(joint["entropy_edges"])
    rows = max(map(filled_rows, counts))
    with style():
        figure = Figure(figsize=WIDE, layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        norm = LogNorm(1, max(2, *(of_model.max() for of_model in counts)))
        for axes, of_model, name in zip(panels, counts, ("base", "RL"), strict=True):
            mesh = draw_joint_map(axes, of_model, js_edges, entropy_edges, rows, norm, group_label(groups["all"]))
            axes.set_ylabel(f"entropy of {name}, nats")
        figure.colorbar(mesh, ax=panels, label="tokens")
        heading(figure, title, counts_text(groups["all"]))
        tidy(figure)
    return figure


@register_summary_figure(
    "token_identity",
    caption="JS in nats of all occurrences of the tokens most frequent among high and among near-zero positions: "
    "median, quartiles (thick) and 5th to 95th percentile (thin), which are no confidence intervals; {n}. "
    "{thresholds}{zeros}{measure}",
)
def token_identity(groups: Numbers, title: str) -> Figure:
    """JS (nats) over all occurrences of the tokens most frequent among high, and among near-zero, positions.

    A marker at the median, a thick line from the first to the third quartile, a thin one from the 5th to the 95th
    percentile; at the right how many of its occurrences are high, and how many there are.
    """
    with style():
        figure = Figure(figsize=(7.0, 4.0), layout=ConstrainedLayoutEngine(wspace=0.06))
        panels = figure.subplots(1, 2)
        identity = groups["all"]["identity"]
        kinds = (("high", f"JS > {HIGH:g}", ORANGE), ("near_zero", f"JS < {NEAR_ZERO:g}", BLUE))
        for axes, (name, which, color) in zip(panels, kinds, strict=True):
            rows = identity[name][:TOKENS]
            axes.set_title(f"most frequent with {which}", fontsize=8, pad=14)
            axes.set_xlabel(group_label(groups["all"]))
            js_axis(axes, "x", NOISE, every=2)
            if not rows:
                note(axes, f"no token with {which}")
                axes.set_yticks([])
                continue
            mark_thresholds(axes, "x")
            _spreads(axes, rows, color)
        panels[0].set_ylabel("token")
        heading(figure, title, counts_text(groups["all"]))
        tidy(figure)
    return figure


def _spreads(axes: Axes, rows: list[dict[str, Any]], color: str) -> None:
    low, first, median, third, high = np.array([row["quantiles"] for row in rows]).T
    heights = np.arange(len(rows))
    axes.hlines(heights, low, high, color=color, linewidth=0.9)
    axes.hlines(heights, first, third, color=color, linewidth=3.5, alpha=0.5)
    axes.plot(median, heights, color=color, marker="o", markersize=3.5, linestyle="none")
    axes.set_yticks(heights, [token_label(row["token"]) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)  # most frequent on top
    counts = axes.twinx()  # the layout leaves room for ticks, however long
    counts.set_yticks(heights, [f"{compact(row['n_high'])} / {compact(row['n'])}" for row in rows])
    counts.set_ylim(axes.get_ylim())
    counts.tick_params(axis="y", length=0)
    counts.set_ylabel(f"occurrences: JS > {HIGH:g} / all")
