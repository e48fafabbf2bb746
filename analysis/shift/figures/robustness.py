"""The figures of the shift across temperature, top-p and whose responses."""

import numpy as np
from matplotlib.figure import Figure

from tokenshift.analysis.figures.kit import (
    LOOKS,
    Look,
    Series,
    draw_rows,
    draw_series,
    heading,
    legend,
    note,
    of_rows,
    short,
    tidy,
)
from tokenshift.analysis.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, style
from tokenshift.analysis.shift.figures.evolution import EvolutionRows
from tokenshift.analysis.shift.figures.registry import ROBUSTNESS_FIGURES, register_robustness_figure
from tokenshift.analysis.shift.figures.second_column import SECOND
from tokenshift.analysis.shift.robustness import by_truncation
from tokenshift.analysis.thresholds import HIGH, NEAR_ZERO

EXACT = Look(ORANGE, "|")
"""Look of the share of exact zeros."""

_QUANTITIES = {
    "near_zero": f"JS < {NEAR_ZERO:g},\n% of tokens",
    "high": f"JS > {HIGH:g},\n% of tokens",
    "overlap_2": f"top-2 overlap at\nJS > {HIGH:g}, %",
    "rank_3": f"RL's top-1 in base's\ntop 3 at JS > {HIGH:g}, %",
}


def robustness_figures(rows: EvolutionRows, title: str) -> dict[str, tuple[Figure, str]]:
    """Every figure of a robustness analysis, with its caption, by file name.

    Args:
        rows: the rows of `robustness_row`.
        title: title of every figure.
    """
    return ROBUSTNESS_FIGURES.draw(rows, title)


@register_robustness_figure(
    "robustness",
    caption="Shares over all tokens, and over tokens with JS > 0.1, for each setting, with 95 % intervals by problem. "
    "JS is between distributions truncated to the row's top-p, or whole ones. Beside near-zero tokens: those whose "
    "JS is exactly 0, and those that are near zero by the full JS.",
)
def robustness(rows: EvolutionRows, title: str) -> Figure:
    """The main numbers under each setting of the analysis, in per cent, with 95 % whiskers.

    Args:
        rows: one per setting: `label`, and `near_zero`, `high`, `overlap_2`, `rank_3`, `exact_zero` and, in `second`,
            `near_zero` by the full JS, shares as `value`, `low` and `high`; any of it may be None.
        title: title of the figure.
    """
    with style():
        figure = Figure(figsize=(7.0, max(2.4, 1.3 + 0.22 * len(rows))), layout="constrained")
        panels = figure.subplots(1, len(_QUANTITIES), sharey=True)
        heights = np.arange(len(rows))
        for axes, (key, words) in zip(panels, _QUANTITIES.items(), strict=True):
            values: Series = of_rows(rows, key) * 100
            draw_rows(axes, heights, values, LOOKS["all"])
            axes.set_xlabel(words)
            axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
            axes.locator_params(axis="x", nbins=4)
            if not np.isfinite(values.value).any():
                note(axes, "none")
        for path, look, words in (
            (("exact_zero",), EXACT, "exactly 0"),
            (("second", "near_zero"), SECOND, f"full JS < {NEAR_ZERO:g}"),
        ):
            draw_rows(panels[0], heights, of_rows(rows, *path) * 100, look)
            panels[0].plot([], [], color=look.color, marker=look.marker, markersize=3.5, linestyle="none", label=words)
        legend(figure, panels[0])
        panels[0].set_yticks(heights, [short(str(row["label"])) for row in rows])
        panels[0].set_ylim(max(len(rows), 1) - 0.5, -0.5)
        panels[0].set_ylabel("setting")
        heading(figure, title, f"n = {len(rows)} settings")
        tidy(figure)
    return figure


@register_robustness_figure(
    "sparsity_by_top_p",
    caption="How much of the sparsity is truncation: share of tokens whose JS is below 0.001 (solid), and exactly 0 "
    "(dotted, of truncated distributions), by the top-p that both distributions are truncated to (whole: not at all), "
    "for each temperature; whiskers: 95 % intervals by problem. The axis does not begin at 0.",
)
def sparsity_by_top_p(rows: EvolutionRows, title: str) -> Figure:
    """Shares of near-zero and of exactly zero tokens (%) by top-p, one panel per kind of trajectory; 95 % whiskers.

    Args:
        rows: one per setting: `trajectories`, `temperature`, `top_p`, and `near_zero` and `exact_zero` as `value`,
            `low` and `high`.
        title: title of the figure.
    """
    rows = by_truncation(rows)
    kinds = list(dict.fromkeys(row["trajectories"] for row in rows))
    top_ps = sorted({row["top_p"] for row in rows})
    temperatures = sorted({row["temperature"] for row in rows})
    colors = (BLUE, ORANGE, GREEN, PURPLE, GREY)
    with style():
        figure = Figure(figsize=(7.0, 3.4), layout="constrained")
        panels = figure.subplots(1, max(1, len(kinds)), sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=False):
            for number, temperature in enumerate(temperatures):
                chosen = [row for row in rows if (row["trajectories"], row["temperature"]) == (kind, temperature)]
                truncated = [row for row in chosen if row["top_p"] < 1]
                color = colors[number % len(colors)]
                for name, shown, words, marker, line in (
                    ("near_zero", chosen, f"JS < {NEAR_ZERO:g}", "o", "-"),
                    ("exact_zero", truncated, "exactly 0", "s", ":"),
                ):
                    positions = np.array([top_ps.index(row["top_p"]) for row in shown]) + 0.06 * number
                    label = f"{words}, T {temperature:g}"
                    draw_series(axes, positions, of_rows(shown, name) * 100, Look(color, marker, line), label)
            axes.set_title(f"{kind} trajectories", fontsize=8)
            axes.set_xticks(range(len(top_ps)), ["whole" if top_p == 1 else f"{top_p:g}" for top_p in top_ps])
            axes.set_xlabel("top-p")
        panels[0].set_ylabel("% of tokens")
        legend(figure, panels[0])
        heading(figure, title, f"n = {len(rows)} settings")
        tidy(figure)
    return figure
