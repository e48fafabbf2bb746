"""A map of the tokens by JS and entropy, and the log axis of JS on which a histogram's first bin begins at 0."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm

from tokenshift.analysis.figures.kit import mark_thresholds, number
from tokenshift.analysis.figures.style import MAP


def log_edges(edges: np.ndarray) -> np.ndarray:
    """The edges of bins for a log axis: 0, which has no place there, is replaced by a third of a decade below."""
    return np.concatenate([[edges[1] / 10 ** (1 / 3)], edges[1:]])


def log_js_axis(axes: Axes, edges: np.ndarray, label: str) -> None:
    """Make x the log axis of a histogram of JS, with marks at the thresholds.

    Args:
        axes: the panel.
        edges: edges of the histogram's bins in nats, from 0.
        label: the divergence and its unit, `measure_label`.
    """
    ends = log_edges(edges)
    axes.set_xscale("log")
    axes.set_xticks([1e-7, 1e-5, 1e-3, 1e-1], ["1e-7", "1e-5", "0.001", "0.1"])
    axes.minorticks_off()  # they take most of the drawing time
    axes.set_xlim(ends[0], ends[-1])
    mark_thresholds(axes, "x")
    axes.set_xlabel(f"{label}\nfirst column: below {number(edges[1])}")


def filled_rows(counts: np.ndarray) -> int:
    """The number of bins of entropy, from 0 on, with all tokens of `counts` `(js bins, entropy bins)`; at least 1."""
    filled = np.flatnonzero(counts.sum(axis=0))
    return int(filled[-1]) + 1 if len(filled) else 1


def draw_joint_map(
    axes: Axes,
    counts: np.ndarray,
    js_edges: np.ndarray,
    entropy_edges: np.ndarray,
    rows: int,
    norm: LogNorm,
    label: str,
) -> QuadMesh:
    """Draw the number of tokens by JS (x) and entropy (y).

    Args:
        axes: the panel.
        counts: number of tokens by bins of JS and of entropy.
        js_edges, entropy_edges: edges of these bins, nats.
        rows: how many bins of entropy are drawn.
        norm: the colour scale.
        label: the divergence and its unit.
    """
    mesh = axes.pcolormesh(
        log_edges(js_edges),
        entropy_edges[: rows + 1],
        np.ma.masked_equal(counts[:, :rows].T, 0),
        norm=norm,
        cmap=MAP,
        rasterized=True,
    )
    log_js_axis(axes, js_edges, label)
    return mesh
