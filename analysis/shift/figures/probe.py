"""The probe's four figures: where JS lies, where in the completion, at which entropies, and how it grows."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tokenshift.analysis.figures.style import BLUE, GREEN, GREY, MAP, ORANGE, PURPLE, style
from tokenshift.analysis.thresholds import HIGH, LOG_2, NEAR_ZERO, POSITION_BINS
from tokenshift.analysis.token_table.columns import column, position_bins

FLOOR = 1e-7
"""Nats; float32 tells smaller divergences from zero only by chance. They are drawn in a bin of their own."""

EDGES = np.geomspace(FLOOR, LOG_2, 41)
PERCENTILES = (("p50", GREEN), ("p90", PURPLE), ("p95", BLUE), ("p99", ORANGE))


def _mark_thresholds(axes: Axes) -> None:
    for value, name in ((NEAR_ZERO, "near zero"), (HIGH, "high")):
        axes.axvline(value, color=GREY, linewidth=0.8, linestyle="--")
        axes.text(value, 1.0, f" {name}", transform=axes.get_xaxis_transform(), va="top", fontsize=7, color=GREY)


def js_histogram(table: pa.Table, title: str) -> Figure:
    """Share of tokens by JS, on a log axis; tokens below 1e-7 in the leftmost bar."""
    js = column(table, "js")
    edges = np.concatenate([[FLOOR / 10 ** (1 / 3)], EDGES])
    counts = np.concatenate([[(js < FLOOR).sum()], np.histogram(js.clip(FLOOR, LOG_2)[js >= FLOOR], EDGES)[0]])
    with style():
        figure = Figure(figsize=(4.5, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.bar(edges[:-1], 100 * counts / len(js), np.diff(edges), align="edge", color=BLUE, linewidth=0)
        axes.patches[0].set_color(GREY)
        axes.set_xscale("log")
        axes.set_yscale("symlog", linthresh=0.1)
        axes.set_ylim(0, 100)
        axes.set_yticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
        axes.minorticks_off()  # most of the drawing time
        axes.set_xlabel("JS(base, policy), nats; grey: below 1e-7")
        axes.set_ylabel("% of tokens")
        _mark_thresholds(axes)
        axes.set_title(f"{title}, n = {len(js)} tokens")
    return figure


def position_profile(table: pa.Table, title: str) -> Figure:
    """Mean and 95th percentile of JS by relative position in the completion."""
    js, parts = column(table, "js"), position_bins(table)
    present = np.unique(parts)
    mean = [js[parts == part].mean() for part in present]
    high = [np.quantile(js[parts == part], 0.95) for part in present]
    with style():
        figure = Figure(figsize=(4.5, 3.2), layout="constrained")
        axes = figure.subplots()
        middle = (present + 0.5) / POSITION_BINS
        axes.plot(middle, high, color=ORANGE, marker="o", markersize=3, label="95th percentile")
        axes.plot(middle, mean, color=BLUE, marker="o", markersize=3, label="mean")
        axes.set_yscale("symlog", linthresh=NEAR_ZERO / 10)
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, 1)
        axes.set_xlabel("position in the completion / its length")
        axes.set_ylabel("JS(base, policy), nats")
        axes.legend(frameon=False)
        axes.set_title(f"{title}, n = {len(js)} tokens")
    return figure


def js_entropy_map(table: pa.Table, title: str) -> Figure:
    """Number of tokens by JS and the policy's entropy."""
    js, entropy = column(table, "js").clip(FLOOR, LOG_2), column(table, "entropy_rl")
    top = max(float(entropy.max()), 1e-3)
    with style():
        figure = Figure(figsize=(4.5, 3.2), layout="constrained")
        axes = figure.subplots()
        counts, _, _ = np.histogram2d(js, entropy, (EDGES, np.linspace(0, top, 31)))
        mesh = axes.pcolormesh(
            EDGES,
            np.linspace(0, top, 31),
            np.ma.masked_equal(counts.T, 0),
            norm=LogNorm(1, max(counts.max(), 2)),
            cmap=MAP,
            rasterized=True,
        )
        axes.set_xscale("log")
        axes.minorticks_off()
        _mark_thresholds(axes)
        axes.set_xlabel("JS(base, policy), nats (below 1e-7 in the first column)")
        axes.set_ylabel("entropy of the policy, nats")
        figure.colorbar(mesh, label="tokens")
        axes.set_title(f"{title}, n = {len(js)} tokens")
    return figure


def percentiles_over_steps(steps: Sequence[int], summaries: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Percentiles of JS at each probe, from its `shift_summary`."""
    with style():
        figure = Figure(figsize=(4.5, 3.2), layout="constrained")
        axes = figure.subplots()
        for name, color in reversed(PERCENTILES):
            values = [summary[name] for summary in summaries]
            axes.plot(steps, values, color=color, marker="o", markersize=3, label=name)
        axes.set_yscale("symlog", linthresh=1e-5)
        axes.set_ylim(0, 1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("update")
        axes.set_ylabel("JS(base, policy), nats per token")
        figure.legend(frameon=False, title="percentile", loc="outside right center")
        tokens = sorted({int(summary["tokens"]) for summary in summaries})
        n = f"{tokens[0]}" if len(tokens) == 1 else f"{tokens[0]} to {tokens[-1]}"
        axes.set_title(f"{title}, n = {n} tokens a probe")
    return figure
