"""Words of a page, a figure and a table on exact zeros beside a truncated sparsity."""

from collections.abc import Mapping
from typing import Any

from tokenshift.analysis.report.numbers import NOT_DEFINED, PERCENT, interval_text
from tokenshift.analysis.shift.exact_zeros import EXACT_ZERO, ONE_TOKEN, OTHER_ZERO
from tokenshift.analysis.shift.summary import group_estimate
from tokenshift.analysis.thresholds import NEAR_ZERO


def exact_zero_words(group: Mapping[str, Any], *, brief: bool = False) -> str:
    """The words beside a truncated sparsity: how many tokens are exact zeros, and the full JS among them.

    Args:
        group: a group of `summarise`.
        brief: without the interval and the cause, for the cell of a table.

    Returns:
        A sentence, or, if `brief`, a phrase; empty for a table without truncated JS.
    """
    share = group_estimate(group, "exact_zero", EXACT_ZERO)
    if share is None:
        return ""
    mean, largest = group_estimate(group, "at_exact_zero", "js"), group.get("js_max_at_exact_zero")
    full = (
        ""
        if mean is None or largest is None
        else f"full JS there {mean['value']:.2g} on average, up to {largest:.2g} nats"
    )
    if brief:
        return f"exactly 0: {PERCENT * share['value']:.1f} %" + (f" ({full})" if full else "")
    other = group_estimate(group, "exact_zero", OTHER_ZERO)
    cause = (
        "" if other is None else f", {PERCENT * (share['value'] - other['value']):.1f} % with one and the same token"
    )
    cause = f"{cause} as both nuclei" if cause else ""
    return f"Exactly 0 at top-p: {interval_text(share, scale=PERCENT, digits='.1f', unit=' %')} of tokens{cause}" + (
        f"; {full}." if full else "."
    )


ROWS = (
    ("exactly 0, %", "exact_zero", EXACT_ZERO, PERCENT),
    ("one and the same token is both nuclei, %", "exact_zero", ONE_TOKEN, PERCENT),
    ("exactly 0 for another reason, %", "exact_zero", OTHER_ZERO, PERCENT),
    ("exact zeros among near-zero tokens, %", "exact_zero_of_near_zero", EXACT_ZERO, PERCENT),
    (f"full JS < {NEAR_ZERO:g} among exact zeros, %", "at_exact_zero", f"< {NEAR_ZERO:g}", PERCENT),
    ("mean full JS among exact zeros, nats", "at_exact_zero", "js", 1.0),
)
"""Rows of the page's table: words, mean and label of a group, and factor."""


def exact_zero_rows(groups: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Rows of a table on exact zeros: words, then one cell for each group; none without truncated JS.

    Args:
        groups: groups of `summarise`, by name.
    """
    if not any("exact_zero" in group["means"] for group in groups.values()):
        return []
    rows = []
    for words, name, label, scale in ROWS:
        estimates = [group_estimate(group, name, label) for group in groups.values()]
        if any(estimate is not None for estimate in estimates):
            digits = ".1f" if scale == PERCENT else ".3g"
            rows.append([words, *(interval_text(each, scale=scale, digits=digits) for each in estimates)])
    largest = [group.get("js_max_at_exact_zero") for group in groups.values()]
    texts = [NOT_DEFINED if value is None else f"{value:.3g}" for value in largest]
    return [*rows, ["largest full JS among exact zeros, nats", *texts]]
