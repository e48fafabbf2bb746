"""One table over the settings of an analysis: do the shares stay where they are?"""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenshift.analysis.report.markdown import markdown_table
from tokenshift.analysis.report.numbers import PERCENT, interval_text
from tokenshift.analysis.shift.summary import labelled_estimate, summarise
from tokenshift.analysis.token_table.reader import Source

ROBUSTNESS_SHARES = {
    "near_zero": ("sparsity", "< 0.001"),
    "high": ("sparsity", "> 0.1"),
    "overlap_2": ("overlap_high", "2"),
    "rank_3": ("rank_high", "<= 3"),
    "improbable": ("improbable_high", "< 0.01"),
}
"""The shares of a row by name: which mean of a summary each is, and at which label."""

ROBUSTNESS_COLUMNS = (
    "trajectories",
    "T",
    "top-p",
    "tokens",
    "accuracy",
    "JS < 1e-3",
    "JS > 0.1",
    "overlap@2, high",
    "rank <= 3, high",
    "p < 0.01, high",
)
"""Headings of the table."""


def robustness_row(source: Source, setting: Mapping[str, Any], measure: str, resamples: int = 1000) -> dict[str, Any]:
    """One row of the table.

    Args:
        source: per-token table of one kind of trajectory.
        setting: `trajectories`, `temperature` and `top_p` (1 for whole distributions) of the row.
        measure: the column that counts as the divergence, `js` or `js_top_p`.
        resamples: number of resamples of the bootstrap.

    Returns:
        What `setting` has, `label`, `tokens`, `accuracy`, and each of `ROBUSTNESS_SHARES` as `value`, `low`, `high`
        (None where there is no such token); `cells`, the same as text under `ROBUSTNESS_COLUMNS`.
    """
    (groups,) = summarise(source, measure=measure, resamples=resamples).values()
    group = groups["all"]
    means = group["means"]
    shares = {name: labelled_estimate(means[mean], label) for name, (mean, label) in ROBUSTNESS_SHARES.items()}
    accuracy = labelled_estimate(means["response"], "accuracy")
    truncation = "whole" if setting["top_p"] == 1 else f"{setting['top_p']:g}"
    words = truncation if truncation == "whole" else f"top-p {truncation}"
    cells = [
        str(setting["trajectories"]),
        f"{setting['temperature']:g}",
        truncation,
        str(group["tokens"]),
        *(interval_text(estimate, scale=PERCENT, digits=".1f") for estimate in (accuracy, *shares.values())),
    ]
    return {
        **setting,
        "label": f"{setting['trajectories']}, T {setting['temperature']:g}, {words}",
        "tokens": group["tokens"],
        "accuracy": accuracy,
        **shares,
        "cells": cells,
    }


def robustness_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown."""
    return markdown_table(ROBUSTNESS_COLUMNS, [row["cells"] for row in rows])
