"""The numbers of a reproduction that trackers get: verdicts by section, and the estimate behind each statement."""

import re
from collections.abc import Mapping
from typing import Any

from tokenshift.analysis.report.statements import NOT_SEEN, OPEN, SEEN
from tokenshift.recipes.command_line.tracking import with_ends
from tokenshift.recipes.jobs.reproduction.agreement import bare_verdict


def reproduction_numbers(record: Mapping[str, Any]) -> dict[str, float | None]:
    """The result of a reproduction.

    Args:
        record: What `reproduction.json` holds.

    Returns:
        `section_N/seen`, `section_N/open` and `section_N/not_seen`, the number of statements of each section of the
        publication with that verdict; and `section_N/ROW/ARM/STATEMENT`, the estimate of each statement that has one,
        with the ends of its 95 % interval as `NAME_low` and `NAME_high`.
    """
    numbers: dict[str, float | None] = {}
    for row in record["rows"]:
        section = f"section_{row['section']}"
        for verdict in (SEEN, OPEN, NOT_SEEN):
            name = f"{section}/{_plain_name(verdict)}"
            numbers[name] = (numbers.get(name) or 0) + (bare_verdict(row["verdict"]) == verdict)
    for row in record["rows"]:
        _, *parts = row["id"].split(" / ")
        name = "/".join([f"section_{row['section']}", *map(_plain_name, parts)])
        numbers |= with_ends(name, row["estimate"])
    return numbers


def _plain_name(words: str) -> str:
    """Words as a part of a metric's name: letters, digits, `.`, `_` and `-` alone; MLflow refuses others."""
    return re.sub(r"[^\w.-]+", "_", words).strip("_")
