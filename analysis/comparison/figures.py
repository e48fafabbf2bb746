"""Figures of a comparison of training variants. Each variant has a named row or panel, so that many stay readable.

Shape legend: S seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tokenshift.analysis.comparison.curves import Curve
from tokenshift.analysis.comparison.outcomes import FINAL_ACCURACY, OUTCOMES
from tokenshift.analysis.comparison.results import CellResult
from tokenshift.analysis.comparison.verdicts import DISCOVERY, REPLICATION
from tokenshift.analysis.figures.kit import heading, js_axis, js_floor, note, of_rows, short, tidy
from tokenshift.analysis.figures.style import BLUE, GREY, ORANGE, style
from tokenshift.analysis.thresholds import NEAR_ZERO
from tokenshift.analysis.token_table.measure import measure_name

Summary = Mapping[str, Any]
"""The result of `comparison_summary`, or a part of it."""

PANELS_PER_ROW = 5
"""The most panels side by side."""

SMOOTH = 5
"""The number of logs in a trailing mean of the training reward."""

APART = 0.2
"""The distance of the two sets of seeds from a row's middle, where there are two."""

CAPTIONS = {
    **{
        name: f"{outcome.words.capitalize()} of each variant, one circle a seed, and its difference to the baseline."
        for name, outcome in OUTCOMES.items()
    },
    "dose": "The outcome against the dose of a weighting, and its difference to the baseline.",
    "training_reward": "Reward in training, mean and range over seeds; dashed: the baseline.",
    "probed_accuracy": "Accuracy of the probe's own responses in training, mean and range over seeds.",
    "shift": "What training moved: share of near-zero tokens, tail of the JS, and recovery where it was measured.",
}
"""Names of all figures, and their captions on the page."""


def variant_figures(summary: Summary, results: Sequence[CellResult]) -> dict[str, Figure]:
    """Every figure that the numbers allow, by file name.

    Args:
        summary: The result of `comparison_summary`, with the comparison's `name`.
        results: The results of the trained models.
    """
    outcomes = dict.fromkeys((summary["outcome"]["name"], FINAL_ACCURACY))
    figures = {name: outcome_figure(summary, name) for name in outcomes}
    if summary.get("doses"):
        figures["dose"] = dose(summary)
    results = [cell for cell in results if cell.seed in summary["seeds"]]  # of the discovery
    if any(cell.rewards for cell in results):
        figures["training_reward"] = learning_curves(summary, results, "rewards")
    if any(len(cell.probed) > 2 for cell in results):
        figures["probed_accuracy"] = learning_curves(summary, results, "probed")
    if any(cell.shift for cell in results):
        figures["shift"] = shift(summary)
    return figures


def _band(curves: Sequence[Curve], smooth: int) -> tuple[np.ndarray, np.ndarray]:
    """The updates that the curves of all seeds have, and trailing means of the values at them, `(S, updates)`."""
    steps = sorted(set.intersection(*(set(dict(curve)) for curve in curves)))
    values = np.array([[dict(curve)[step] for step in steps] for curve in curves])
    smoothed = [values[:, max(0, index + 1 - smooth) : index + 1].mean(axis=1) for index in range(len(steps))]
    return np.array(steps), np.stack(smoothed, axis=1) if steps else values.reshape(len(curves), 0)


def learning_curves(summary: Summary, results: Sequence[CellResult], what: str) -> Figure:
    """Reward or accuracy against updates, one panel per variant, with the baseline: mean and range over the seeds of
    the discovery.

    Args:
        summary: As for `variant_figures`.
        results: The results of the trained models.
        what: `rewards` for the training reward, or `probed` for the accuracy of the probe's own responses.
    """
    baseline = summary["baseline"]
    curves: dict[str, list[Curve]] = {}
    for cell in results:
        if cell.seed in summary["seeds"] and getattr(cell, what):
            curves.setdefault(cell.variant, []).append(getattr(cell, what))
    others = [row["variant"] for row in summary["variants"] if row["variant"] != baseline]
    columns = min(PANELS_PER_ROW, max(1, len(others)))
    rows = -(-len(others) // columns)
    longest = max(len(curve) for of_seeds in curves.values() for curve in of_seeds)
    smooth = SMOOTH if what == "rewards" and longest > 12 else 1
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
        for index, axes in enumerate(panels[: len(others)]):
            axes.tick_params(labelbottom=index + columns >= len(others))
        figure.supxlabel("update", fontsize=8.5)
        figure.supylabel(words, fontsize=8.5)
        trailing = f"; trailing means of {smooth} logs" if smooth > 1 else ""
        count = (
            f"{_discovery_seeds(summary)}; line: mean, band: smallest to largest{trailing}; dashed grey: {baseline}"
        )
        heading(figure, summary["name"], count)
        tidy(figure)
    return figure


def _seeds(summary: Summary, places: tuple[str, str] = ("", "")) -> str:
    """The numbers of seeds of both sets, each with the place where it is drawn."""
    replication = summary.get("replication")
    text = _discovery_seeds(summary)
    if replication is None:
        return text
    return f"{text}{places[0]}, {len(replication['seeds'])} of the replication{places[1]}"


def _discovery_seeds(summary: Summary) -> str:
    count = len(summary["seeds"])
    discovery = "" if summary.get("replication") is None else " of the discovery"
    return f"n = {count} seed{'s' * (count != 1)}{discovery}"


def _seed_sets(summary: Summary) -> dict[str, tuple[Sequence[Summary], float]]:
    """Each set of seeds: its rows, and the offset from the middle of a row at which it is drawn."""
    replication = summary.get("replication")
    if replication is None:
        return {DISCOVERY: (summary["variants"], 0.0)}
    return {DISCOVERY: (summary["variants"], -APART), REPLICATION: (replication["variants"], APART)}


def _points(
    axes: Axes, rows: Sequence[Summary], entry: Callable[[Summary], Summary], scale: float, offset: float = 0.0
) -> None:
    """One row per variant: an open point for each seed, a bar at the mean, and a line for its interval if any."""
    for index, row in enumerate(rows):
        number, middle = entry(row), index + offset
        values = [scale * value for value in number["by_seed"].values() if value is not None]
        # seeds a little apart, so that equal ones are seen
        step = 0.11 if not offset else min(0.11, 0.3 / max(1, len(values)))
        heights = middle + step * (np.arange(len(values)) - (len(values) - 1) / 2)
        axes.plot(values, heights, marker="o", markersize=3.5, linestyle="none", markerfacecolor="none", color=GREY)
        if number["value"] is not None:
            mean = scale * number["value"]
            if number.get("low") is not None:
                ends = scale * number["low"], scale * number["high"]
                axes.hlines([middle], *ends, color=BLUE, linewidth=1, alpha=0.6)
            size = 7 if offset else 13
            axes.plot([mean], [middle], marker="|", markersize=size, markeredgewidth=1.8, linestyle="none", color=BLUE)


def _differences(
    axes: Axes, rows: Sequence[Summary], entry: Callable[[Summary], Summary], scale: float, offset: float = 0.0
) -> None:
    """One row per variant: the difference and its interval, filled where it is significant after Holm's correction and
    dashed where it is approximate; squares for the replication."""
    series = of_rows([{"label": row["variant"], "entry": _with_value(entry(row))} for row in rows], "entry") * scale
    for index, row in enumerate(rows):
        difference = entry(row)["difference"] or {}
        significant = difference.get("p_holm") is not None and difference["p_holm"] <= 0.05
        colour = ORANGE if significant else BLUE
        face = colour if significant else "white"
        line = (0, (3, 1.5)) if difference.get("coverage") is not None else "-"
        ends = series.low[index], series.high[index]
        axes.hlines([index + offset], *ends, color=colour, linewidth=1.2, linestyle=line, zorder=2)
        mark: dict[str, Any] = {"marker": "s" if offset > 0 else "D", "markersize": 4, "mfc": face, "zorder": 3}
        axes.plot(series.value[index], index + offset, linestyle="none", color=colour, **mark)
    axes.axvline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)


def _with_value(entry: Summary) -> Summary | None:
    difference = entry["difference"]
    if difference is None:
        return None
    return {"value": difference["difference"], "low": difference["low"], "high": difference["high"]}


def _rows_axis(figure: Figure, rows: Sequence[Summary]) -> None:
    for axes in figure.axes:
        axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
    figure.axes[0].set_yticks(range(len(rows)), [short(row["variant"]) for row in rows])


def _height(rows: Sequence[Summary]) -> float:
    return max(2.4, 1.2 + 0.3 * len(rows))


def final_accuracy(summary: Summary) -> Figure:
    """Accuracy (%) of each variant with one point per seed, and its difference from the baseline (percentage points).

    Args:
        summary: As for `variant_figures`.
    """
    return outcome_figure(summary, FINAL_ACCURACY)


def outcome_figure(summary: Summary, name: str) -> Figure:
    """An outcome (%) of each variant with one point per seed, and its difference from the baseline (points).

    Args:
        summary: As for `variant_figures`.
        name: The outcome, a name of `OUTCOMES`.
    """
    rows, key = summary["variants"], OUTCOMES[name].key
    with style():
        figure = Figure(figsize=(7.0, _height(rows)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for of_seeds, offset in _seed_sets(summary).values():
            _points(left, of_seeds, lambda row: row[key], 100, offset)
            _differences(right, of_seeds, lambda row: row[key], 100, offset)
        _rows_axis(figure, rows)
        left.set_xlabel(_outcome_words(summary, name))
        right.set_xlabel(f"difference to {summary['baseline']}, points")
        sets = ", ".join(f"{count:,} of {set_name}" for set_name, count in summary["sets"].items())
        over = f", problems: {sets}; 95 % intervals over seeds and problems"
        if name != FINAL_ACCURACY:
            over = "; 95 % intervals over seeds"
        dashed = "; dashed: approximate" if _has_approximate(summary, key) else ""
        count = f"{_seeds(summary, (' (above)', ' (below)'))} (circles; bar: mean){over}{dashed}"
        heading(figure, f"{summary['name']}\n", f"{count}; filled: p (Holm) <= 0.05")
        tidy(figure)
    return figure


def _outcome_words(summary: Summary, name: str) -> str:
    if name == FINAL_ACCURACY:
        rule = summary.get("correct")
        return "accuracy, %" if rule is None else f"responses with {rule}, %"
    rewards = summary["outcome"]["rewards"]
    reward = f"\n(mean over updates of {short(rewards[0])})" if name == "learning_area" and rewards else ""
    return f"{OUTCOMES[name].words}, %{reward}"


def _has_approximate(summary: Summary, key: str) -> bool:
    rows = [row for of_seeds, _ in _seed_sets(summary).values() for row in of_seeds]
    return any((row[key]["difference"] or {}).get("coverage") is not None for row in rows)


def dose(summary: Summary) -> Figure:
    """The outcome (%) against the dose, and its difference from the baseline, one row of panels per weighting.

    Args:
        summary: As for `variant_figures`, with `doses`: for each weighting its name `of`, the `axis`, and the dose by
            variant, `doses`.
    """
    name = summary["outcome"]["name"]
    key, axes_of_doses = OUTCOMES[name].key, summary["doses"]
    with style():
        size = (7.0, 0.9 + 1.9 * len(axes_of_doses))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(axes_of_doses), 2, squeeze=False, sharey="col")
        for (left, right), axis in zip(panels, axes_of_doses, strict=True):
            doses = sorted(axis["doses"], key=axis["doses"].get)
            for (seeds, (rows, offset)), colour, marker in zip(
                _seed_sets(summary).items(), (BLUE, ORANGE), "os", strict=False
            ):
                by_name = {row["variant"]: row[key] for row in rows}
                places = np.arange(len(doses)) + offset / 3
                level = of_rows([{"label": variant, "entry": by_name[variant]} for variant in doses], "entry") * 100
                gain = [{"label": variant, "entry": _with_value(by_name[variant])} for variant in doses]
                for panel, series in ((left, level), (right, of_rows(gain, "entry") * 100)):
                    reach = np.abs(np.stack([series.value - series.low, series.high - series.value]))
                    look = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.1, "capsize": 2}
                    panel.errorbar(places, series.value, np.nan_to_num(reach), label=seeds, **look)
                baseline = by_name[summary["baseline"]]["value"]
                if baseline is not None:
                    left.axhline(100 * baseline, color=colour, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7)
            right.axhline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
            for panel in (left, right):
                panel.set_xticks(range(len(doses)), [f"{axis['doses'][variant]:g}" for variant in doses])
                panel.set_xlim(-0.5, len(doses) - 0.5)
                panel.set_xlabel(axis["axis"])
                panel.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
            left.set_title(short(axis["of"], 44), fontsize=8, loc="left")
            left.set_ylabel("%")
            right.set_ylabel("points")
        panels[0, 1].set_title(f"difference to {short(summary['baseline'])}", fontsize=8, loc="left")
        if summary.get("replication") is not None:
            panels[0, 1].legend(fontsize=7)
        words = f"{OUTCOMES[name].words}; {_seeds(summary)}; 95 % intervals; dashed: {summary['baseline']}"
        heading(figure, f"{summary['name']}\n", words)
        tidy(figure)
    return figure


def shift(summary: Summary) -> Figure:
    """The numbers that training moved, with one point per seed: the share of near-zero tokens (%), the 99th percentile
    of JS (nats), and, where it was measured, recovery (%).

    Args:
        summary: As for `variant_figures`.
    """
    rows, measure = summary["variants"], summary["measure"]
    panels: dict[str, tuple[str, float]] = {
        f"{measure}_frac_near_zero": (f"{measure_name(measure)} < {NEAR_ZERO:g}, % of tokens", 100),
        f"{measure}_p99": (f"99th percentile of {measure_name(measure)}, nats", 1),
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
            for seed, value in row[f"{measure}_p99"]["by_seed"].items()
        ]
        series = of_rows(tails, "p99")
        js_axis(drawn[1], "x", js_floor([series], 1e-6), series.top * 1.5)
        _rows_axis(figure, rows)
        count = f"{_discovery_seeds(summary)} (circles; bar: mean); final probe, the model's own responses"
        heading(figure, summary["name"], count)
        tidy(figure)
    return figure
