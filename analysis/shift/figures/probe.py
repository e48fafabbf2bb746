"""The probe's figures: where JS lies, where in the response, at which entropies, and how it grows."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from tokenshift.analysis.figures.kit import JS_LABEL, SINGLE, heading, js_axis, legend, tidy
from tokenshift.analysis.figures.style import BLUE, GREY, ORANGE, style
from tokenshift.analysis.shift.figures.evolution import percentile_evolution
from tokenshift.analysis.shift.figures.joint_map import draw_joint_map, filled_rows, log_edges, log_js_axis
from tokenshift.analysis.shift.figures.registry import PROBE_FIGURES, register_probe_figure
from tokenshift.analysis.shift.joint_counts import JOINT_ENTROPY, JOINT_JS, joint_counts
from tokenshift.analysis.thresholds import NEAR_ZERO, POSITION_BINS
from tokenshift.analysis.token_table.columns import column, response_parts


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
    return figures | {"percentiles": (percentiles, "Percentiles of JS(base, policy) in nats over the updates.")}


@register_probe_figure(
    "js_histogram", caption="Share of tokens by JS(base, policy) in nats; the first bar is below 1e-7."
)
def js_histogram(table: pa.Table, title: str) -> Figure:
    """Share of tokens (%) by JS (nats) on a log axis; tokens below 1e-7 in the leftmost bar."""
    js, edges = column(table, "js"), log_edges(JOINT_JS)
    counts = np.histogram(js.clip(0), JOINT_JS)[0]
    with style():
        figure = Figure(figsize=SINGLE, layout="constrained")
        axes = figure.subplots()
        axes.bar(edges[:-1], 100 * counts / len(js), np.diff(edges), align="edge", color=BLUE, linewidth=0)
        axes.patches[0].set_color(GREY)
        log_js_axis(axes, JOINT_JS)
        axes.set_yscale("symlog", linthresh=0.1)
        axes.set_ylim(0, 100)
        axes.set_yticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
        axes.minorticks_off()
        axes.set_ylabel("% of tokens")
        heading(figure, title, f"n = {len(js):,} tokens")
        tidy(figure)
    return figure


@register_probe_figure(
    "position_profile", caption="Mean and 95th percentile of JS(base, policy) in nats by position in the response."
)
def position_profile(table: pa.Table, title: str) -> Figure:
    """Mean and 95th percentile of JS (nats) by position over the response's length."""
    js, parts = column(table, "js"), response_parts(table)
    present = np.unique(parts)
    mean = [js[parts == part].mean() for part in present]
    high = [np.quantile(js[parts == part], 0.95) for part in present]
    with style():
        figure = Figure(figsize=SINGLE, layout="constrained")
        axes = figure.subplots()
        middle = (present + 0.5) / POSITION_BINS
        axes.plot(middle, high, color=ORANGE, marker="^", markersize=3.5, linestyle="--", label="95th percentile")
        axes.plot(middle, mean, color=BLUE, marker="o", markersize=3.5, label="mean")
        js_axis(axes, "y", NEAR_ZERO / 10, max(*mean, *high))
        axes.set_xlim(0, 1)
        axes.set_xlabel("position / response length")
        axes.set_ylabel(JS_LABEL)
        legend(figure, axes)
        heading(figure, title, f"n = {len(js):,} tokens")
        tidy(figure)
    return figure


@register_probe_figure(
    "js_entropy_map", caption="Number of tokens by JS(base, policy) and the policy's entropy, in nats."
)
def js_entropy_map(table: pa.Table, title: str) -> Figure:
    """Number of tokens (log colour) by JS and the policy's entropy, both in nats; JS below 1e-7 at the left."""
    counts = joint_counts(column(table, "js"), column(table, "entropy_rl"))
    with style():
        figure = Figure(figsize=SINGLE, layout="constrained")
        axes = figure.subplots()
        norm = LogNorm(1, max(2, counts.max()))
        mesh = draw_joint_map(axes, counts, JOINT_JS, JOINT_ENTROPY, filled_rows(counts), norm)
        axes.set_ylabel("entropy of RL, nats")
        figure.colorbar(mesh, label="tokens")
        heading(figure, title, f"n = {table.num_rows:,} tokens")
        tidy(figure)
    return figure


def percentiles_over_steps(steps: Sequence[int], summaries: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Percentiles of JS (nats) at each probe.

    Args:
        steps: updates of the probes.
        summaries: the `shift_summary` of each probe.
        title: title of the figure.
    """
    names = {"0.5": "p50", "0.9": "p90", "0.95": "p95", "0.99": "p99"}
    rows = [
        {
            "label": f"update {step}",
            "step": step,
            "quantiles": {quantile: {"value": summary[name]} for quantile, name in names.items()},
        }
        for step, summary in zip(steps, summaries, strict=True)
    ]
    tokens = sorted({int(summary["tokens"]) for summary in summaries})
    count = f"{tokens[0]:,}" if len(tokens) == 1 else f"{tokens[0]:,} to {tokens[-1]:,}"
    return percentile_evolution(rows, f"{title}, {count} tokens per probe")
