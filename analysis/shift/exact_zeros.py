"""Exact zeros of the truncated JS, and the full JS among them: how much of a sparsity is truncation.

The truncated JS of a token is 0, exactly, where one and the same token holds top-p of the mass under both models: both
truncated distributions then have that token alone. The whole distributions may differ there. Other exact zeros have
several tokens of equal probabilities under both models, as two models with the same weights give them.
"""

import numpy as np
import pyarrow as pa

from tokenshift.analysis.shift.binned_means import BinnedTerms, side_by_side
from tokenshift.analysis.thresholds import NEAR_ZERO
from tokenshift.analysis.token_table.columns import column
from tokenshift.analysis.token_table.measure import FULL_JS, TRUNCATED_JS

EXACT_ZERO, ONE_TOKEN, OTHER_ZERO = "exact zero", "one token", "other"
"""Labels of the mean `exact_zero`: all exact zeros, those of single-token nuclei, and others."""

ROUNDING = 1e-6
"""The probabilities of a table are float32; a nucleus of one token is found where its probability comes this close."""


def exact_zero_terms(table: pa.Table, measure: str, *, top_p: float | None = None) -> dict[str, BinnedTerms]:
    """Share of tokens whose truncated JS is exactly 0, why it is, and the full JS (nats) among them.

    Args:
        table: rows with `js_top_p`; without that column there is no mean.
        measure: has no effect: these means are of `js_top_p` and `js`, whichever measure counts.
        top_p: what `js_top_p` truncates to; None if it is not known: then no cause of the zeros is told.

    Returns:
        The means `exact_zero`, `exact_zero_of_near_zero` (share of the tokens with a truncated JS below 0.001), and
        `at_exact_zero`: `js`, and share of tokens whose full JS is near zero too.
    """
    if TRUNCATED_JS not in table.column_names:
        return {}
    truncated, full = column(table, TRUNCATED_JS), column(table, FULL_JS)
    zero = truncated == 0
    labels, shares = [EXACT_ZERO], [zero]
    if top_p is not None and "mass_rl_1" in table.column_names:
        one = zero & _one_token(table, top_p)
        labels, shares = [EXACT_ZERO, ONE_TOKEN, OTHER_ZERO], [zero, one, zero & ~one]
    return {
        "exact_zero": side_by_side(labels, shares),
        "exact_zero_of_near_zero": side_by_side([EXACT_ZERO], [zero], truncated < NEAR_ZERO),
        "at_exact_zero": side_by_side(["js", f"< {NEAR_ZERO:g}"], [full, full < NEAR_ZERO], zero),
    }


def _one_token(table: pa.Table, top_p: float) -> np.ndarray:
    """Whether one and the same token fills both nuclei, bool `(N,)`; never where nothing is truncated."""
    same = column(table, "top1_base") == column(table, "top1_rl")
    least = np.minimum(column(table, "mass_base_1"), column(table, "mass_rl_1"))  # both of the base's first token
    filled: np.ndarray = same & (least.astype(np.float64) >= top_p - ROUNDING) & (top_p < 1)
    return filled


def largest_at_exact_zero(table: pa.Table) -> float | None:
    """The largest full JS (nats) where the truncated JS is exactly 0; None without such a token."""
    if TRUNCATED_JS not in table.column_names:
        return None
    values = column(table, FULL_JS)[column(table, TRUNCATED_JS) == 0]
    return float(values.max()) if len(values) else None
