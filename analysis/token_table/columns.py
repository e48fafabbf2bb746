"""Columns of the per-token table as arrays."""

import numpy as np
import pyarrow as pa

from tokenshift.analysis.thresholds import position_bins


def column(table: pa.Table, name: str) -> np.ndarray:
    """The values of a column, `(N,)`."""
    values: np.ndarray = table[name].to_numpy()
    return values


def response_parts(table: pa.Table) -> np.ndarray:
    """Index of the part of its response that each token lies in, `(N,)` int64, 0 to `POSITION_BINS` - 1."""
    return position_bins(column(table, "position").astype(np.int64), column(table, "length").astype(np.int64))
