"""Figures of a comparison of training variants. Each is a row or a panel with its name, so that many stay readable.

Shape legend: S seeds.
"""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tokenshift.analysis.comparison.results import CellResult, Curve
from tokenshift.analysis.figures.kit import Numbers, heading, js_axis, js_floor, note, of_rows, short, tidy
from tokenshift.analysis.figures.style import BLUE, GREY, ORANGE, style
from tokenshift.analysis.thresholds import NEAR_ZERO

COLUMNS = 5
"""Panels side by side at most."""

SMOOTH = 5
"""Logs in a trailing mean of the training reward."""


FIGURES = {"final_accuracy", "training_reward", "probed_accuracy", "shift"}
"""Names of the figures that there can be."""


def variant_figures(summary: Numbers, results: Sequence[CellResult]) -> dict[str, Figure]:
    """Every figure that the numbers allow, by file name.

    Args:
        summary: of `comparison_summary`, with `name`.
        results: of the trained models.
    """
    found = {"final_accuracy": final_accuracy(summary)}
    if any(cell.rewards for cell in results):
        found["training_reward"] = learning_curves(summary, results, "rewards")
    if any(len(cell.probed) > 2 for cell in results):
        found["probed_accuracy"] = learning_curves(summary, results, "probed")
    if any(cell.shift for cell in results):
        found["shift"] = shift(summary)
    return found


def _band(curves: Sequence[Curve], smooth: int) -> tuple[np.ndarray, np.ndarray]:
    """Updates that all seeds have, and their values `(S, updates)`, as trailing means."""
    steps = sorted(set.intersection(*(set(dict(curve)) for curve in curves)))
    values = np.array([[dict(curve)[step] for step in steps] for curve in curves])
    smoothed = [values[:, max(0, place + 1 - smooth) : place + 1].mean(axis=1) for place in range(len(steps))]
    return np.array(steps), np.stack(smoothed, axis=1) if steps else values.reshape(len(curves), 0)


def learning_curves(summary: Numbers, results: Sequence[CellResult], what: str) -> Figure:
    """Reward or accuracy against updates, a panel a variant beside the baseline: mean over seeds, smallest to largest.

    Args:
        summary: as for `variant_figures`.
        results: of the trained models.
        what: `rewards`, of training, or `probed`, accuracy of the probe's own responses.
    """
    baseline = summary["baseline"]
    curves: dict[str, list[Curve]] = {}
    for cell in results:
        if getattr(cell, what):
            curves.setdefault(cell.variant, []).append(getattr(cell, what))
    others = [row["variant"] for row in summary["variants"] if row["variant"] != baseline]
    columns = min(COLUMNS, max(1, len(others)))
    rows = -(-len(others) // columns)
    smooth = SMOOTH if what == "rewards" and max(len(each) for own in curves.values() for each in own) > 12 else 1
    scale, words = (1.0, "training reward") if what == "rewards" else (100.0, "probe's accuracy, %")
    with style():
        size = (max(3.6, 1.75 * columns + 0.6), 1.6 * rows + 0.8)
        figure = Figure(figsize=size, layout="constrained")
        panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
        for axes, variant in zip(panels, others, strict=False):
            for name, colour, line in ((baseline, GREY, "--"), (variant, BLUE, "-")):
                if name not in curves:
                    continue
                steps, values = _band(curves[name], smooth)
                values = scale * values
                axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0)
                axes.plot(steps, values.mean(axis=0), color=colour, linestyle=line, linewidth=1.1)
            if variant not in curves:
                note(axes, "no run")
            axes.set_title(short(variant), fontsize=8, color=BLUE)
            axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        for axes in panels[len(others) :]:
            axes.set_visible(False)
        for place, axes in enumerate(panels[: len(others)]):
            axes.tick_params(labelbottom=place + columns >= len(others))
        figure.supxlabel("update", fontsize=8.5)
        figure.supylabel(words, fontsize=8.5)
        trailing = f"; trailing means of {smooth} logs" if smooth > 1 else ""
        count = f"{_seeds(summary)}; line: mean, band: smallest to largest{trailing}; dashed grey: {baseline}"
        heading(figure, summary["name"], count)
        tidy(figure)
    return figure


def _seeds(summary: Numbers) -> str:
    count = len(summary["seeds"])
    return f"n = {count} seed{'s' * (count != 1)}"


def _points(axes: Axes, rows: Sequence[Numbers], entry: Callable[[Numbers], Numbers], scale: float) -> None:
    """A row a variant: an open point a seed, a bar at the mean, and a line over its interval if it has one."""
    for place, row in enumerate(rows):
        own = entry(row)
        values = [scale * value for value in own["by_seed"].values() if value is not None]
        # seeds a little apart, so that equal ones are seen
        heights = place + 0.11 * (np.arange(len(values)) - (len(values) - 1) / 2)
        axes.plot(values, heights, marker="o", markersize=3.5, linestyle="none", markerfacecolor="none", color=GREY)
        if own["value"] is not None:
            mean = scale * own["value"]
            if own.get("low") is not None:
                axes.hlines([place], scale * own["low"], scale * own["high"], color=BLUE, linewidth=1, alpha=0.6)
            axes.plot([mean], [place], marker="|", markersize=13, markeredgewidth=1.8, linestyle="none", color=BLUE)


def _differences(axes: Axes, rows: Sequence[Numbers], entry: Callable[[Numbers], Numbers], scale: float) -> None:
    """A row a variant: the difference with its interval, filled where it is significant after Holm's correction."""
    series = of_rows([{"label": row["variant"], "entry": _with_value(entry(row))} for row in rows], "entry") * scale
    for place, row in enumerate(rows):
        found = entry(row)["difference"] or {}
        significant = found.get("p_holm") is not None and found["p_holm"] <= 0.05
        colour = ORANGE if significant else BLUE
        face = colour if significant else "white"
        axes.hlines([place], series.low[place], series.high[place], color=colour, linewidth=1.2, zorder=2)
        axes.plot(
            series.value[place], place, marker="D", markersize=4, linestyle="none", color=colour, mfc=face, zorder=3
        )
    axes.axvline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)


def _with_value(entry: Numbers) -> Numbers | None:
    found = entry["difference"]
    return None if found is None else {"value": found["difference"], "low": found["low"], "high": found["high"]}


def _rows_axis(figure: Figure, rows: Sequence[Numbers]) -> None:
    for axes in figure.axes:
        axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
    figure.axes[0].set_yticks(range(len(rows)), [short(row["variant"]) for row in rows])


def _height(rows: Sequence[Numbers]) -> float:
    return max(2.4, 1.2 + 0.3 * len(rows))


def final_accuracy(summary: Numbers) -> Figure:
    """Accuracy (%) of each variant, a point a seed, and its difference to the baseline in points with 95 % interval.

    Args:
        summary: as for `variant_figures`.
    """
    rows = summary["variants"]
    with style():
        figure = Figure(figsize=(7.0, _height(rows)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        _points(left, rows, lambda row: row["accuracy"], 100)
        _differences(right, rows, lambda row: row["accuracy"], 100)
        _rows_axis(figure, rows)
        left.set_xlabel("accuracy, %")
        right.set_xlabel(f"difference to {summary['baseline']}, points")
        sets = ", ".join(f"{count:,} of {name}" for name, count in summary["sets"].items())
        count = f"{_seeds(summary)} (circles; bar: mean), problems: {sets}; 95 % intervals over seeds and problems"
        heading(figure, f"{summary['name']}\n", f"{count}; filled: p (Holm) <= 0.05")
        tidy(figure)
    return figure


def shift(summary: Numbers) -> Figure:
    """What each variant moved, a point a seed: share of near-zero tokens (%), the 99th percentile of JS (nats), and,
    where it was measured, recovery (%).

    Args:
        summary: as for `variant_figures`.
    """
    rows = summary["variants"]
    panels: dict[str, tuple[str, float]] = {
        "js_frac_near_zero": (f"JS < {NEAR_ZERO:g}, % of tokens", 100),
        "js_p99": ("99th percentile of JS, nats", 1),
    }
    if any(row["recovery"]["value"] is not None for row in rows):
        panels["recovery"] = ("recovery, %", 100)
    with style():
        figure = Figure(figsize=(2.6 * len(panels) + 1.4, _height(rows)), layout="constrained")
        drawn = figure.subplots(1, len(panels), sharey=True)
        for axes, (name, (words, scale)) in zip(drawn, panels.items(), strict=True):
            _points(axes, rows, lambda row, name=name: row[name], scale)  # type: ignore[misc]
            axes.set_xlabel(words)
            axes.locator_params(axis="x", nbins=5)
        tails = [
            {"label": seed, "p99": {"value": value}}
            for row in rows
            for seed, value in row["js_p99"]["by_seed"].items()
        ]
        series = of_rows(tails, "p99")
        js_axis(drawn[1], "x", js_floor([series], 1e-6), series.top * 1.5)
        _rows_axis(figure, rows)
        count = f"{_seeds(summary)} (circles; bar: mean); final probe, the model's own responses"
        heading(figure, summary["name"], count)
        tidy(figure)
    return figure
