"""One table over the settings of an analysis: do the shares stay where they are?"""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenshift.analysis.report.markdown import markdown_table
from tokenshift.analysis.report.numbers import NOT_DEFINED, PERCENT, interval_text, number_text
from tokenshift.analysis.shift.exact_zeros import ONE_TOKEN
from tokenshift.analysis.shift.summary import group_estimate, labelled_estimate, summarise
from tokenshift.analysis.token_table.measure import DEFAULT_MEASURE, FULL_JS, TRUNCATED_JS
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
    "exactly 0",
    "full JS there, nats",
    "full JS < 1e-3",
)
"""Headings of the table."""

TRUNCATION_COLUMNS = (
    "trajectories",
    "T",
    "top-p",
    "JS < 1e-3, %",
    "exactly 0, %",
    "one token is both nuclei, %",
    "JS > 0.1, %",
    "mean full JS at exact zeros, nats",
    "largest",
)
"""Headings of the table of the sparsity by top-p."""


def robustness_row(
    source: Source, setting: Mapping[str, Any], measure: str = DEFAULT_MEASURE, resamples: int = 1000
) -> dict[str, Any]:
    """One row of the table.

    Args:
        source: per-token table of one kind of trajectory.
        setting: `trajectories`, `temperature` and `top_p` (1 for whole distributions) of the row.
        measure: the column that counts as the divergence, `js` or `js_top_p`.
        resamples: number of resamples of the bootstrap.

    Returns:
        What `setting` has, `label`, `measure`, `tokens`, `accuracy`, and each of `ROBUSTNESS_SHARES` as `value`,
        `low`, `high` (None where there is no such token); `exact_zero`, the share of tokens whose divergence is
        exactly 0; of a truncated row also `one_token`, the share where one and the same token is both nuclei,
        `js_at_exact_zero` and `js_max_at_exact_zero` (full JS, nats), and `second`, `near_zero` and `high` by the full
        JS; `cells`, the same as text under `ROBUSTNESS_COLUMNS`.
    """
    truncated = measure == TRUNCATED_JS
    top_p = float(setting["top_p"]) if truncated else None
    (groups,) = summarise(source, measure=measure, top_p=top_p, resamples=resamples).values()
    group = groups["all"]
    means = group["means"]
    shares = {name: labelled_estimate(means[mean], label) for name, (mean, label) in ROBUSTNESS_SHARES.items()}
    accuracy = labelled_estimate(means["response"], "accuracy")
    words = "whole" if setting["top_p"] == 1 else f"{setting['top_p']:g}"
    cut = words if words == "whole" else f"top-p {words}"
    zeros = {
        "exact_zero": group_estimate(group, "zero", measure),
        "one_token": group_estimate(group, "exact_zero", ONE_TOKEN) if truncated else None,
        "js_at_exact_zero": group_estimate(group, "at_exact_zero", "js") if truncated else None,
        "js_max_at_exact_zero": group["js_max_at_exact_zero"] if truncated else None,
    }
    second = {name: group_estimate(group, name, FULL_JS) for name in ("near_zero", "high")} if truncated else None
    mean, largest = zeros["js_at_exact_zero"], zeros["js_max_at_exact_zero"]
    cells = [
        str(setting["trajectories"]),
        f"{setting['temperature']:g}",
        words,
        str(group["tokens"]),
        *(interval_text(estimate, scale=PERCENT, digits=".1f") for estimate in (accuracy, *shares.values())),
        interval_text(zeros["exact_zero"], scale=PERCENT, digits=".1f"),
        NOT_DEFINED if mean is None else f"{mean['value']:.2g}, up to {largest:.2g}",
        interval_text(second["near_zero"] if second else None, scale=PERCENT, digits=".1f"),
    ]
    return {
        **setting,
        "label": f"{setting['trajectories']}, T {setting['temperature']:g}, {cut}",
        "measure": measure,
        "tokens": group["tokens"],
        "accuracy": accuracy,
        **shares,
        **zeros,
        "second": second,
        "cells": cells,
    }


def by_truncation(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows by kind of trajectory, temperature and top-p, the smallest nucleus first."""
    kinds = list(dict.fromkeys(row["trajectories"] for row in rows))
    return sorted(rows, key=lambda row: (kinds.index(row["trajectories"]), row["temperature"], row["top_p"]))


def truncation_cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The table of the sparsity by top-p, rows of text under `TRUNCATION_COLUMNS`."""
    return [
        [
            *row["cells"][:3],
            *(
                interval_text(row[name], scale=PERCENT, digits=".1f")
                for name in ("near_zero", "exact_zero", "one_token", "high")
            ),
            interval_text(row["js_at_exact_zero"], digits=".2g"),
            number_text(row["js_max_at_exact_zero"], digits=".2g"),
        ]
        for row in by_truncation(rows)
    ]


def robustness_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown."""
    return markdown_table(ROBUSTNESS_COLUMNS, [row["cells"] for row in rows])
