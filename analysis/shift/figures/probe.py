"""The probe's figures: where JS lies, where in the response, at which entropies, and how it grows.

Each has two panels: the truncated JS, the publication's measure, and the full one.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from tokenshift.analysis.figures.kit import WIDE, heading, js_axis, legend, tidy
from tokenshift.analysis.figures.style import BLUE, GREY, ORANGE, style
from tokenshift.analysis.shift.figures.evolution import draw_percentiles
from tokenshift.analysis.shift.figures.joint_map import draw_joint_map, filled_rows, log_edges, log_js_axis
from tokenshift.analysis.shift.figures.registry import PROBE_FIGURES, register_probe_figure
from tokenshift.analysis.shift.joint_counts import JOINT_ENTROPY, JOINT_JS, joint_counts
from tokenshift.analysis.shift.probe_summary import TOP_P_PREFIX, shift_summary
from tokenshift.analysis.thresholds import NEAR_ZERO, POSITION_BINS
from tokenshift.analysis.token_table.columns import column, response_parts
from tokenshift.analysis.token_table.measure import FULL_JS, SHIFT_MEASURES, TRUNCATED_JS, measure_label

PANELS = "Left: JS(base, policy) between distributions truncated to top-p, as published; right: between whole ones."


def probe_figures(
    table: pa.Table, kind: str, step: int, summaries: Mapping[int, Mapping[str, float]]
) -> dict[str, tuple[Figure, str]]:
    """Every figure of a probe, with its caption, by file name.

    Args:
        table: the per-token rows of the probe, of one kind of trajectory, at least one.
        kind: the kind of trajectory, for titles.
        step: the update of the probe.
        summaries: the `shift_summary` of this probe and of those before it, by update.
    """
    figures = PROBE_FIGURES.draw(table, f"{kind} trajectories, update {step}")
    percentiles = percentiles_over_steps(list(summaries), list(summaries.values()), f"{kind} trajectories")
    figures["percentiles"] = (percentiles, "Percentiles of JS(base, policy) in nats over the updates.")
    words = f"{PANELS} {exact_zeros_of(shift_summary(table))}"
    return {name: (figure, f"{caption} {words}") for name, (figure, caption) in figures.items()}


def exact_zeros_of(summary: Mapping[str, float]) -> str:
    """A sentence on the exact zeros of a `shift_summary`."""
    words = f"Truncated JS is exactly 0 at {100 * summary[f'{TOP_P_PREFIX}frac_exact_zero']:.1f} % of tokens"
    mean = summary.get(f"{TOP_P_PREFIX}full_js_at_exact_zero_mean")
    if mean is None:
        return f"{words}."
    largest = summary[f"{TOP_P_PREFIX}full_js_at_exact_zero_max"]
    return f"{words}; the full JS there is {mean:.2g} nats on average, at most {largest:.2g}."


def _two_panels(title: str, count: str, draw: Callable[[Axes, str], None]) -> tuple[Figure, Sequence[Axes]]:
    """A figure with a panel per measure.

    Args:
        title: the figure's title.
        count: what it counts.
        draw: draws a measure into a panel.
    """
    figure = Figure(figsize=WIDE, layout="constrained")
    panels = figure.subplots(1, len(SHIFT_MEASURES), sharey=True)
    for axes, measure in zip(panels, SHIFT_MEASURES, strict=True):
        draw(axes, measure)
    heading(figure, title, count)
    return figure, panels


@register_probe_figure(
    "js_histogram", caption="Share of tokens by JS(base, policy) in nats; the first bar is below 1e-7."
)
def js_histogram(table: pa.Table, title: str) -> Figure:
    """Share of tokens (%) by JS (nats) on a log axis, truncated and full; tokens below 1e-7 in the leftmost bar."""
    edges = log_edges(JOINT_JS)

    def draw(axes: Axes, measure: str) -> None:
        js = column(table, measure)
        counts = np.histogram(js.clip(0), JOINT_JS)[0]
        axes.bar(edges[:-1], 100 * counts / len(js), np.diff(edges), align="edge", color=BLUE, linewidth=0)
        axes.patches[0].set_color(GREY)
        log_js_axis(axes, JOINT_JS, measure_label(measure, models="base, policy"))

    with style():
        figure, panels = _two_panels(title, f"n = {table.num_rows:,} tokens", draw)
        panels[0].set_yscale("symlog", linthresh=0.1)
        panels[0].set_ylim(0, 100)
        panels[0].set_yticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
        panels[0].minorticks_off()
        panels[0].set_ylabel("% of tokens")
        tidy(figure)
    return figure


@register_probe_figure(
    "position_profile", caption="Mean and 95th percentile of JS(base, policy) in nats by position in the response."
)
def position_profile(table: pa.Table, title: str) -> Figure:
    """Mean and 95th percentile of JS (nats), truncated and full, by position over the response's length."""
    parts = response_parts(table)
    present = np.unique(parts)
    middle = (present + 0.5) / POSITION_BINS
    tops: list[float] = []

    def draw(axes: Axes, measure: str) -> None:
        js = column(table, measure)
        mean = [js[parts == part].mean() for part in present]
        high = [np.quantile(js[parts == part], 0.95) for part in present]
        axes.plot(middle, high, color=ORANGE, marker="^", markersize=3.5, linestyle="--", label="95th percentile")
        axes.plot(middle, mean, color=BLUE, marker="o", markersize=3.5, label="mean")
        tops.extend((*mean, *high))
        axes.set_xlim(0, 1)
        axes.set_xlabel("position / response length")
        axes.set_title(measure_label(measure, models="base, policy"), fontsize=8)

    with style():
        figure, panels = _two_panels(title, f"n = {table.num_rows:,} tokens", draw)
        js_axis(panels[0], "y", NEAR_ZERO / 10, max(tops))
        panels[0].set_ylabel("JS, nats")
        legend(figure, panels[0])
        tidy(figure)
    return figure


@register_probe_figure(
    "js_entropy_map", caption="Number of tokens by JS(base, policy) and the policy's entropy, in nats."
)
def js_entropy_map(table: pa.Table, title: str) -> Figure:
    """Number of tokens (log colour) by JS, truncated and full, and the policy's entropy, in nats; JS below 1e-7 at the
    left."""
    counts = {measure: joint_counts(column(table, measure), column(table, "entropy_rl")) for measure in SHIFT_MEASURES}
    rows = max(map(filled_rows, counts.values()))
    norm = LogNorm(1, max(2, *(of_measure.max() for of_measure in counts.values())))
    meshes: list[QuadMesh] = []

    def draw(axes: Axes, measure: str) -> None:
        label = measure_label(measure, models="base, policy")
        meshes.append(draw_joint_map(axes, counts[measure], JOINT_JS, JOINT_ENTROPY, rows, norm, label))

    with style():
        figure, panels = _two_panels(title, f"n = {table.num_rows:,} tokens", draw)
        panels[0].set_ylabel("entropy of RL, nats")
        figure.colorbar(meshes[-1], ax=panels, label="tokens")
        tidy(figure)
    return figure


def percentiles_over_steps(steps: Sequence[int], summaries: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Percentiles of JS (nats), truncated and full, at each probe.

    Args:
        steps: updates of the probes.
        summaries: the `shift_summary` of each probe; those of old probes may lack percentiles of the truncated JS.
        title: title of the figure.
    """
    names = {"0.5": "p50", "0.9": "p90", "0.95": "p95", "0.99": "p99"}
    prefixes = {TRUNCATED_JS: TOP_P_PREFIX, FULL_JS: ""}

    def draw(axes: Axes, measure: str) -> None:
        rows = [
            {
                "label": f"update {step}",
                "step": step,
                "quantiles": {
                    quantile: {"value": summary.get(prefixes[measure] + name)} for quantile, name in names.items()
                },
            }
            for step, summary in sorted(zip(steps, summaries, strict=True), key=lambda pair: pair[0])
        ]
        draw_percentiles(axes, rows, measure_label(measure, models="base, policy"))

    tokens = sorted({int(summary["tokens"]) for summary in summaries})
    count = f"{tokens[0]:,}" if len(tokens) == 1 else f"{tokens[0]:,} to {tokens[-1]:,}"
    probes = f"n = {len(steps)} checkpoint{'s' * (len(steps) != 1)}"
    with style():
        figure, panels = _two_panels(f"{title}, {count} tokens per probe", probes, draw)
        legend(figure, panels[0])
        tidy(figure)
    return figure
