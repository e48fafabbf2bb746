"""One table over settings: do the shares stay where they are?"""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenshift.analysis.report.markdown import markdown_table
from tokenshift.analysis.report.numbers import PERCENT, interval_text
from tokenshift.analysis.shift.summary import entry, summarise
from tokenshift.analysis.token_table.reader import Source

QUANTITIES = {
    "near_zero": ("sparsity", "< 0.001"),
    "high": ("sparsity", "> 0.1"),
    "overlap_2": ("overlap_high", "2"),
    "rank_3": ("rank_high", "<= 3"),
    "improbable": ("improbable_high", "< 0.01"),
}
"""By name, where they are in a summary's means."""

COLUMNS = (
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


def cell_row(source: Source, place: Mapping[str, Any], measure: str, resamples: int = 1000) -> dict[str, Any]:
    """A row of the table.

    Args:
        source: per-token table of one kind of trajectory.
        place: `trajectories`, `temperature` and `top_p` (1 for whole distributions) of the row.
        measure: `js` or `js_top_p`.
        resamples: of the bootstrap.

    Returns:
        `place`, `label`, `tokens`, `accuracy`, and each of `QUANTITIES` as `value`, `low`, `high` (None where there is
        no such token); `cells`, the same as text under `COLUMNS`.
    """
    (groups,) = summarise(source, measure=measure, resamples=resamples).values()
    group = groups["all"]
    found = {name: entry(group["means"][section], label) for name, (section, label) in QUANTITIES.items()}
    right = entry(group["means"]["response"], "accuracy")
    whole = "whole" if place["top_p"] == 1 else f"{place['top_p']:g}"
    label = f"{place['trajectories']}, T {place['temperature']:g}, {whole if whole == 'whole' else f'top-p {whole}'}"
    cells = [
        str(place["trajectories"]),
        f"{place['temperature']:g}",
        whole,
        str(group["tokens"]),
        *(interval_text(each, scale=PERCENT, digits=".1f") for each in (right, *found.values())),
    ]
    return {**place, "label": label, "tokens": group["tokens"], "accuracy": right, **found, "cells": cells}


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown."""
    return markdown_table(COLUMNS, [row["cells"] for row in rows])
