"""How the shift grows over checkpoints: figures of percentiles, of the high-JS set, of overlaps and accuracy."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tokenshift.analysis.figures.kit import (
    LOOKS,
    SINGLE,
    WIDE,
    Look,
    Numbers,
    draw_series,
    heading,
    js_axis,
    legend,
    mark_thresholds,
    note,
    of_rows,
    short,
    tidy,
)
from tokenshift.analysis.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, style
from tokenshift.analysis.shift.evolution import PERCENTILES
from tokenshift.analysis.shift.figures.registry import EVOLUTION_FIGURES, register_evolution_figure
from tokenshift.analysis.shift.figures.second_column import SECOND, measure_sentence
from tokenshift.analysis.thresholds import HIGH, NEAR_ZERO
from tokenshift.analysis.token_table.measure import FULL_JS, TRUNCATED_JS, measure_label, measure_name

EvolutionRows = Sequence[Numbers]

_LOOKS = (Look(GREEN, "o"), Look(PURPLE, "s", "--"), Look(BLUE, "^", "-."), Look(ORANGE, "D"), Look(GREY, "v", ":"))


def evolution_figures(rows: EvolutionRows, title: str) -> dict[str, tuple[Figure, str]]:
    """Every figure of an evolution, with its caption, by file name.

    Args:
        rows: the rows of `evolution_rows`.
        title: title of every figure.
    """
    last = rows[-1] if rows else {}
    sentence = measure_sentence(last)
    drawn = EVOLUTION_FIGURES.draw(rows, title)
    return {name: (figure, f"{caption} {sentence}") for name, (figure, caption) in drawn.items()}


def _in_order(rows: EvolutionRows) -> list[Numbers]:
    """The rows by step, where all of them have one."""
    if any(row.get("step") is None for row in rows):
        return list(rows)
    return sorted(rows, key=lambda row: row["step"])


def _steps(axes: Axes, rows: EvolutionRows) -> np.ndarray:
    """Label x with steps or, if a row has none, with the checkpoints' names. Returns the x of each row, `(N,)`."""
    if not rows:
        note(axes, "no checkpoint")
    if rows and all(row.get("step") is not None for row in rows):
        axes.set_xlabel("update")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
        steps = np.array([row["step"] for row in rows], dtype=float)
        room = 0.04 * (steps[-1] - steps[0]) or 1
        axes.set_xlim(steps[0] - room, steps[-1] + room)  # also where the first or last has no number
        return steps
    axes.set_xlabel("checkpoint")
    labels = [short(str(row["label"]), 20) for row in rows]
    slanted = sum(map(len, labels)) > 40
    axes.set_xticks(range(len(rows)), labels, rotation=30 if slanted else 0, ha="right" if slanted else "center")
    axes.set_xlim(-0.3, max(len(rows), 1) - 0.7)
    return np.arange(len(rows), dtype=float)


def _count(rows: EvolutionRows) -> str:
    return f"n = {len(rows)} checkpoint{'s' * (len(rows) != 1)}"


@register_evolution_figure(
    "percentiles",
    caption="Percentiles of JS(base, checkpoint) along the last checkpoint's responses, with 95 % intervals.",
)
def percentile_evolution(rows: EvolutionRows, title: str) -> Figure:
    """Percentiles of JS (nats) at each checkpoint, with 95 % whiskers.

    Args:
        rows: one per checkpoint: `label`, `step` (update, or None), and `quantiles`, from "0.5", "0.9", "0.95" and
            "0.99" to `value`, `low` and `high`; any of it may be None.
        title: title of the figure.
    """
    rows = _in_order(rows)
    with style():
        figure = Figure(figsize=SINGLE, layout="constrained")
        axes = figure.subplots()
        draw_percentiles(axes, rows, _label(rows))
        legend(figure, axes)
        heading(figure, title, _count(rows))
        tidy(figure)
    return figure


def _label(rows: EvolutionRows) -> str:
    """The measure of the rows as the label of an axis."""
    last = rows[-1] if rows else {}
    return measure_label(last.get("measure", FULL_JS), last.get("top_p"), "base, checkpoint")


def draw_percentiles(axes: Axes, rows: EvolutionRows, label: str) -> None:
    """Draw the percentiles of rows in order.

    Args:
        axes: the panel.
        rows: as for `percentile_evolution`.
        label: the divergence and its unit, `measure_label`.
    """
    steps = _steps(axes, rows)
    top = NEAR_ZERO
    for name, look in reversed(list(zip(PERCENTILES, _LOOKS[: len(PERCENTILES)], strict=True))):
        values = of_rows(rows, "quantiles", name)
        draw_series(axes, steps, values, look, f"p{100 * float(name):g}")
        top = max(top, values.top)
    js_axis(axes, "y", 1e-6, top)
    mark_thresholds(axes, "y")
    axes.set_ylabel(label)


@register_evolution_figure(
    "near_zero",
    caption="Share of tokens whose JS(base, checkpoint) is below 0.001, along the last checkpoint's responses: by the "
    "measure of the page, and thin by the other one. Exactly 0: the truncated JS of tokens where both truncated "
    "distributions are the same, nearly always since one and the same token is both. 95 % intervals.",
)
def near_zero_evolution(rows: EvolutionRows, title: str) -> Figure:
    """Shares of near-zero and of exactly zero tokens (%) at each checkpoint, by both measures; 95 % whiskers.

    Args:
        rows: as for `percentile_evolution`, with `measure`, `top_p`, `near_zero` and `exact_zero`, and the same of the
            other measure in `second`.
        title: title of the figure.
    """
    rows = _in_order(rows)
    with style():
        figure = Figure(figsize=SINGLE, layout="constrained")
        axes = figure.subplots()
        steps = _steps(axes, rows)
        last = rows[-1] if rows else {}
        second = last.get("second") or {}
        for path, part, look in (
            (("near_zero",), last, LOOKS["all"]),
            (("second", "near_zero"), second, SECOND),
        ):
            if part:
                name = measure_name(part.get("measure", FULL_JS), last.get("top_p"))
                draw_series(axes, steps, of_rows(rows, *path) * 100, look, f"{name} < {NEAR_ZERO:g}")
        exact = measure_name(TRUNCATED_JS, last.get("top_p"))
        draw_series(axes, steps, of_rows(rows, "exact_zero") * 100, Look(ORANGE, "s", "--"), f"{exact} exactly 0")
        axes.set_ylabel("% of tokens")
        legend(figure, axes)
        heading(figure, title, _count(rows))
        tidy(figure)
    return figure


@register_evolution_figure(
    "jaccard",
    caption="Jaccard overlap of each checkpoint's tokens with JS > 0.1 with the last one's and the previous one's.",
)
def jaccard_evolution(rows: EvolutionRows, title: str) -> Figure:
    """Jaccard index of each checkpoint's high-JS positions with the last's, and with those of the one before, with
    95 % whiskers.

    Args:
        rows: as for `percentile_evolution`, with `jaccard_final` and `jaccard_previous`, each `value`, `low` and
            `high`, or None.
        title: title of the figure.
    """
    rows = _in_order(rows)
    with style():
        figure = Figure(figsize=SINGLE, layout="constrained")
        axes = figure.subplots()
        steps = _steps(axes, rows)
        for key, label, look in (
            ("jaccard_final", "with the last checkpoint", Look(BLUE, "o")),
            ("jaccard_previous", "with the one before", Look(ORANGE, "^", "--")),
        ):
            draw_series(axes, steps, of_rows(rows, key), look, label)
        axes.set_ylim(-0.02, 1.04)
        axes.set_ylabel(f"Jaccard index, JS > {HIGH:g}")
        legend(figure, axes)
        heading(figure, title, _count(rows))
        tidy(figure)
    return figure


@register_evolution_figure(
    "overlap_accuracy",
    caption="Top-k overlap at tokens with JS > 0.1, and accuracy of each checkpoint's own responses.",
)
def overlap_accuracy_evolution(rows: EvolutionRows, title: str) -> Figure:
    """Top-k overlap over high-JS positions (%), and accuracy (%), at each checkpoint, with 95 % whiskers.

    Args:
        rows: as for `percentile_evolution`, with `overlap_high`, from k to `value`, `low` and `high`, and `accuracy`
            of the same form.
        title: title of the figure.
    """
    rows = _in_order(rows)
    with style():
        figure = Figure(figsize=WIDE, layout="constrained")
        left, right = figure.subplots(1, 2)
        steps = _steps(left, rows)
        _steps(right, rows)
        names = sorted({str(k) for row in rows for k in row.get("overlap_high") or {}}, key=int)
        for number, name in enumerate(names):
            by_text = [{**row, "overlap_high": _text_keys(row.get("overlap_high"))} for row in rows]
            look = _LOOKS[number % len(_LOOKS)]
            draw_series(left, steps, of_rows(by_text, "overlap_high", name) * 100, look, f"k = {name}")
        draw_series(right, steps, of_rows(rows, "accuracy") * 100, LOOKS["all"])
        left.set_ylim(0, 103)
        right.set_ylim(0, 103)
        left.set_ylabel(f"overlap of the top k at JS > {HIGH:g}, %")
        right.set_ylabel("accuracy, % of responses")
        legend(figure, left)
        heading(figure, title, _count(rows))
        tidy(figure)
    return figure


def _text_keys(by_k: Numbers | None) -> Numbers:
    return {str(k): estimate for k, estimate in (by_k or {}).items()}
