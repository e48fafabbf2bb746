"""The figure of the shift across temperature, top-p and whose responses."""

import numpy as np
from matplotlib.figure import Figure

from tokenshift.analysis.figures.kit import LOOKS, Series, draw_rows, heading, note, of_rows, short, tidy
from tokenshift.analysis.figures.style import GREY, style
from tokenshift.analysis.shift.figures.evolution import EvolutionRows
from tokenshift.analysis.shift.figures.registry import ROBUSTNESS_FIGURES, register_robustness_figure
from tokenshift.analysis.thresholds import HIGH, NEAR_ZERO

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
    caption="Shares over all tokens, and over tokens with JS > 0.1, for each setting, with 95 % intervals by problem.",
)
def robustness(rows: EvolutionRows, title: str) -> Figure:
    """The main numbers under each setting of the analysis, in per cent, with 95 % whiskers.

    Args:
        rows: one per setting: `label`, and `near_zero`, `high`, `overlap_2` and `rank_3`, shares as `value`, `low` and
            `high`; any of it may be None.
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
        panels[0].set_yticks(heights, [short(str(row["label"])) for row in rows])
        panels[0].set_ylim(max(len(rows), 1) - 0.5, -0.5)
        panels[0].set_ylabel("setting")
        heading(figure, title, f"n = {len(rows)} settings")
        tidy(figure)
    return figure
