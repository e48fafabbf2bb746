"""Columns of the per-token table as arrays, and their bins."""

import numpy as np
import pyarrow as pa

from tokenshift.analysis.thresholds import JS_EDGES, POSITION_BINS


def column(table: pa.Table, name: str) -> np.ndarray:
    """A column as numpy, `(N,)`."""
    values: np.ndarray = table[name].to_numpy()
    return values


def position_bins(table: pa.Table) -> np.ndarray:
    """Each token's part of its completion, `(N,)` int, 0 to POSITION_BINS - 1."""
    return column(table, "position").astype(np.int64) * POSITION_BINS // column(table, "length")


def js_bins(js: np.ndarray) -> np.ndarray:
    """Each token's place in `JS_BINS`, `(N,)` int."""
    return np.digitize(js, JS_EDGES)
