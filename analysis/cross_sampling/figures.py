"""Figures of cross-sampling: accuracy against what was replaced, and how few tokens suffice."""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tokenshift.analysis.figures.kit import (
    Look,
    Numbers,
    Series,
    draw_rows,
    draw_series,
    heading,
    legend,
    note,
    number,
    of_rows,
    tidy,
)
from tokenshift.analysis.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, style

CRITERION_LOOKS = {
    "js_top_p": Look(BLUE, "D"),
    "js": Look(BLUE, "o", "--"),
    "random": Look(GREY, "s", "--"),
    "random_disagreement": Look(GREY, "d"),
    "delta_logp": Look(ORANGE, "^", "-."),
    "forward_kl": Look(GREEN, "v"),
    "reverse_kl": Look(GREEN, "D", ":"),
    "entropy_primary": Look(PURPLE, "P"),
    "entropy_intervention": Look(PURPLE, "X", ":"),
    "position": Look(GREY, "*", ":"),
}
"""A shipped criterion looks the same in every figure; others are black."""

_OTHER_LOOKS = [Look("black", marker, line) for line in (":", "--") for marker in "h8pd<>"]
_GAMMA_MARKERS, _SHARPENING_MARKERS = "<>pd", "hH8X"

AXES = {
    "effective": ("effective replacements, % of tokens", 100),
    "effective_count": ("effective replacements a response", 1),
    "intervened": ("intervened tokens, %", 100),
}
"""Quantities that accuracy is drawn against: name -> (words of the axis, factor to the unit)."""

FEW_TOKENS: dict[tuple[str, ...], tuple[str, float]] = {
    ("area_intervened_10",): ("mean recovery over the first\n10 % of intervened tokens, %", 100),
    ("needed", "effective_count", "50"): ("effective replacements a\nresponse for 50 % of the gain", 1),
    ("needed", "effective_count", "90"): ("effective replacements a\nresponse for 90 % of the gain", 1),
}
"""Numbers that say how few tokens suffice on a curve: keys of its entry -> (words of the axis, factor to the unit)."""


def criterion_looks(curves: Sequence[Numbers]) -> dict[str, Look]:
    """The look of each criterion among curves; those of users are told apart by their markers."""
    others = [name for name in dict.fromkeys(curve["criterion"] for curve in curves) if name not in CRITERION_LOOKS]
    return CRITERION_LOOKS | dict(zip(others, cycle(_OTHER_LOOKS), strict=False))


def of_curve(cells: Sequence[Numbers], curve: Numbers) -> list[Numbers]:
    """The cells of a curve from `none` to `all`, in the order of their thresholds, the highest first."""
    direction, gamma, sharpening = curve["direction"], curve["gamma"], curve["sharpening"]
    same_direction = [cell for cell in cells if cell["direction"] == direction]
    names = ("criterion", "gamma", "most", "sharpening")
    swept = [cell for cell in same_direction if all(cell[name] == curve[name] for name in names)]
    none = [cell for cell in same_direction if cell["criterion"] == "none"]
    ends = [cell for cell in same_direction if cell["criterion"] == "all"]
    whole = [cell for cell in ends if (cell["gamma"], cell["sharpening"]) == (gamma, sharpening)]
    return [*none, *sorted(swept, key=lambda cell: -(cell["epsilon"] or 0.0)), *whole]


def curve_name(curve: Numbers) -> str:
    """The curve's criterion; its gamma, its sharpened base and its cap on replacements where it has them."""
    gamma = f", gamma {curve['gamma']:g}" if curve["gamma"] else ""
    base = "" if curve["sharpening"] is None else f", base^{curve['sharpening']:g}"
    return f"{curve['criterion']}{gamma}{base}" + ("" if curve["most"] is None else f", at most {curve['most']}")


def _axis(axes: Axes, values: np.ndarray) -> None:
    """Log scale from the decade of the smallest number above 0 to the largest, linear below so that 0 has a place."""
    positive = values[np.isfinite(values) & (values > 0)]
    if not len(positive):
        return
    first = int(np.floor(np.log10(max(positive.min(), 1e-3 * positive.max()))))
    top = float(positive.max())
    axes.set_xscale("symlog", linthresh=10.0**first, linscale=0.6)
    ticks = [0.0, *(10.0**power for power in range(first, int(np.floor(np.log10(top))) + 1))]
    axes.set_xticks(ticks, [number(tick) if tick else "0" for tick in ticks])
    axes.set_xlim(-0.1 * 10.0**first, top * 1.25)
    axes.minorticks_off()


def accuracy_curves(summary: Numbers, direction: str, against: str, title: str) -> Figure:
    """Accuracy (%) of the mixed policy, one line per criterion from `none` to `all`, with 95 % whiskers.

    The levels of base and RL are lines with their intervals as bands.

    Args:
        summary: the numbers of `recovery_summary`.
        direction: `forward` or `backward`.
        against: one of `AXES`.
        title: the title of the figure.
    """
    words, factor = AXES[against]
    curves = [curve for curve in summary["curves"] if curve["direction"] == direction]
    cells = [{**cell, "label": ""} for cell in summary["cells"] if cell["direction"] == direction]
    with style():
        figure = Figure(figsize=(5.6, 3.9), layout="constrained")
        axes = figure.subplots()
        all_shares = [np.zeros(1)]
        gammas = sorted({curve["gamma"] for curve in curves if curve["gamma"]})
        powers = sorted({curve["sharpening"] for curve in curves if curve["sharpening"] is not None})
        drawn_curves = curves or _ends_alone(cells)
        looks = criterion_looks(drawn_curves)
        for curve in drawn_curves:
            points = of_curve(cells, curve)
            shares = of_rows(points, against).value * factor
            look = looks[curve["criterion"]]
            if curve["gamma"]:
                look = Look(look.color, _GAMMA_MARKERS[gammas.index(curve["gamma"]) % len(_GAMMA_MARKERS)], ":")
            if curve["sharpening"] is not None:
                marker = _SHARPENING_MARKERS[powers.index(curve["sharpening"]) % len(_SHARPENING_MARKERS)]
                look = Look(look.color, marker, ":")
            draw_series(axes, shares, of_rows(points, "accuracy") * 100, look, curve_name(curve))
            all_shares.append(shares)
        _axis(axes, np.concatenate(all_shares))
        top = 0.0
        for name, words_of_level, line in (("base", "base", (0, (4, 3))), ("rl", "RL", "-")):
            level = summary["levels"][name]
            if level is None:
                note(axes, "no response was judged")
                continue
            axes.axhspan(100 * level["low"], 100 * level["high"], color=GREY, alpha=0.13, linewidth=0, zorder=0)
            axes.axhline(100 * level["value"], color=GREY, linewidth=0.8, linestyle=line, zorder=1)
            axes.text(
                1.01,
                100 * level["value"],
                words_of_level,
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=7,
                color=GREY,
            )
            top = max(top, level["high"])
        values = of_rows(cells, "accuracy")
        axes.set_ylim(0, min(103.0, 110 * max(top, values.top) + 1))
        axes.set_xlabel(words)
        rule = summary.get("correct")
        axes.set_ylabel("accuracy, % of responses" if rule is None else f"responses with {rule}, %")
        legend(figure, axes)
        heading(figure, title, counted(summary, direction))
        tidy(figure)
    return figure


def _ends_alone(cells: Sequence[Numbers]) -> list[Numbers]:
    """Cells of the curves where no criterion was swept: a curve per gamma or sharpened base through the two ends."""
    return [{**cell, "criterion": "all", "most": None} for cell in cells if cell["criterion"] == "all"]


def counted(summary: Numbers, direction: str) -> str:
    """The numbers of responses, problems and seeds in a direction's cells, as text."""
    cells = [cell for cell in summary["cells"] if cell["direction"] == direction]
    seeds = max(len(cell["seeds"]) for cell in cells)
    return (
        f"n = {cells[0]['responses']:,} responses a point, {summary['problems']:,} problems, "
        f"{seeds} seed{'s' * (seeds != 1)}; 95 % intervals by problem"
    )


def areas(summary: Numbers, direction: str, title: str) -> Figure:
    """The tokens that suffice by each criterion: `FEW_TOKENS` with 95 % whiskers, the largest area first.

    A dotted whisker goes on to where some resamples do not reach the recovery.

    Args:
        summary: the numbers of `recovery_summary`.
        direction: `forward` or `backward`.
        title: the title of the figure.
    """
    curves = [curve for curve in summary["curves"] if curve["direction"] == direction and curve["most"] is None]
    curves = sorted(curves, key=lambda curve: -(curve["area_intervened_10"] or {"value": -np.inf})["value"])
    rows = [{**curve, "label": curve_name(curve)} for curve in curves]
    looks = criterion_looks([curve for curve in summary["curves"] if curve["direction"] == direction])
    with style():
        figure = Figure(figsize=(7.6, max(2.7, 1.5 + 0.24 * len(rows))), layout="constrained")
        panels = figure.subplots(1, len(FEW_TOKENS), sharey=True)
        for axes, (path, (words, factor)) in zip(panels, FEW_TOKENS.items(), strict=True):
            drawn = of_rows(rows, *path) * factor
            for height, row in enumerate(rows):
                draw_rows(axes, np.array([height]), drawn[height : height + 1], looks[row["criterion"]])
            axes.set_xlabel(words)
            axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
            axes.locator_params(axis="x", nbins=5)
            if not summary["defined"]:
                note(axes, "recovery is not defined")
            elif path[0] == "needed":
                _mark_not_reached(axes, drawn, [looks[row["criterion"]] for row in rows])
        panels[0].set_yticks(range(len(rows)), [row["label"] for row in rows])
        panels[0].set_ylim(max(len(rows), 1) - 0.5, -0.5)
        heading(figure, title, counted(summary, direction))
        tidy(figure)
    return figure


def _mark_not_reached(axes: Axes, needed: Series, looks: Sequence[Look]) -> None:
    """Say so where a curve does not reach the recovery, and dot the whiskers of those that some resamples do not."""
    axes.set_xlim(0, 1.1 * needed.top if needed.top else 1)
    right = axes.get_xlim()[1]
    for height, look in enumerate(looks):
        if np.isnan(needed.value[height]):
            axes.text(0.03 * right, height, "not reached", va="center", fontsize=6.5, color=GREY)
        elif np.isnan(needed.high[height]):
            axes.hlines(height, needed.low[height], right, color=look.color, linewidth=1, linestyle=":")
