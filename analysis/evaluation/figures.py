"""The figure of an evaluation: pass@k and majority@k of each model, one panel per set."""

import numpy as np
from matplotlib.figure import Figure

from tokenshift.analysis.figures.kit import (
    Look,
    Numbers,
    dodges,
    draw_series,
    heading,
    legend,
    note,
    of_rows,
    short,
    tidy,
)
from tokenshift.analysis.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, style

COLOURS = (BLUE, GREY, ORANGE, GREEN, PURPLE)
"""Colours of the models, in their order."""

MARKERS = {"pass": (("o", "s", "D", "P", "h"), "-"), "majority": (("^", "v", "<", ">", "X"), ":")}
"""One marker per model, and the line, of each estimator."""

PANELS_IN_A_ROW = 3
"""Largest number of panels side by side."""

STEP = 0.07
"""Distance between markers at one k; the distance between two k is 1."""


def at_k_curves(summary: Numbers, title: str, correct: str | None = None) -> Figure:
    """Share of problems solved (%) against k, with 95 % whiskers: by any of k responses, and by their majority.

    At k = 1 both are the mean over all responses, and are drawn as one. Where no answers were taken, there is no
    majority to draw.

    Args:
        summary: The numbers of `evaluation_summary`.
        title: The figure's title.
        correct: The rule by which responses count as correct, for the caption; none is shown if None.
    """
    groups, models = summary["groups"], summary["models"]
    drawn = {name: look for name, look in MARKERS.items() if name != "majority" or summary.get("voting", True)}
    ks = [1, *(k for k in summary["ks"] if k > 1)]
    columns = min(PANELS_IN_A_ROW, len(groups))
    rows = -(-len(groups) // columns)
    with style():
        size = (max(4.5, 2.8 * columns + 0.6), 2.5 * rows + 0.7 + 0.2 * len(models))
        figure = Figure(figsize=size, layout="constrained")
        panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
        for axes, (name, group) in zip(panels, groups.items(), strict=False):
            shifts = iter(dodges(2 * len(models), STEP))
            for index, model in enumerate(models):
                metrics = group["models"][model]
                for estimator, (markers, line) in drawn.items():
                    entries = [metrics[f"mean@{summary['samples']}"], *(metrics[f"{estimator}@{k}"] for k in ks[1:])]
                    series = of_rows([{"label": "", "entry": entry} for entry in entries], "entry") * 100
                    look = Look(COLOURS[index % len(COLOURS)], markers[index % len(markers)], line)
                    label = f"{estimator}@k, {short(model, 40)}"
                    draw_series(axes, np.arange(len(ks)) + next(shifts), series, look, label)
            axes.set_title(f"{short(name)}, {group['problems']:,} problems", fontsize=8.5)
            axes.set_xticks(range(len(ks)), [str(k) for k in ks])
            axes.set_xlim(-0.5, len(ks) - 0.5)
            axes.set_ylim(-2, 103)
            axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
            axes.set_xlabel("k, responses")
            if not any(metrics[f"mean@{summary['samples']}"] for metrics in group["models"].values()):
                note(axes, "no response was judged")
        for axes in panels[len(groups) :]:
            axes.set_visible(False)
        for axes in figure.axes[::columns]:
            axes.set_ylabel("problems solved, %")
        legend(figure, figure.axes[0])
        count = f"n = {summary['samples']} responses per problem; 95 % intervals by problem"
        count += "" if correct is None else f"; correct: {correct}"
        heading(figure, title, count)
        tidy(figure)
    return figure
