"""The verdict on each variant: from the replication seeds where there are some, else from the first ones.

Seeds that suggested a difference cannot also confirm it: those of the discovery and those of the replication are
tested apart and never pooled.
"""

from collections.abc import Mapping
from typing import Any

from tokenshift.analysis.comparison.outcomes import OUTCOMES
from tokenshift.analysis.statistics.paired import ALPHA

DISCOVERY, REPLICATION = "discovery", "replication"
"""The two sets of seeds."""

HIGHER, LOWER, NOT_SHOWN, NO_INTERVAL = "higher", "lower", "not shown", "no interval"
"""Verdicts on a variant's outcome, beside the baseline's."""


def verdicts(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The verdict on every variant but the baseline.

    Args:
        summary: The result of `comparison_summary`.

    Returns:
        For each variant a dictionary with `variant`, `seeds` (the set of seeds that decides: `discovery` or
        `replication`), `verdict` (`higher` or `lower` where Holm's p is at most 5 %, else `not shown`; `no interval`
        with fewer than two seeds), and `discovery` and `replication`, the differences in the outcome by set of seeds;
        None where there is none.
    """
    key = OUTCOMES[summary["outcome"]["name"]].key
    replicated = {row["variant"]: row for row in (summary["replication"] or {"variants": []})["variants"]}
    lines = []
    for row in summary["variants"]:
        if row["variant"] == summary["baseline"]:
            continue
        differences = {
            DISCOVERY: row[key]["difference"],
            REPLICATION: replicated[row["variant"]][key]["difference"] if row["variant"] in replicated else None,
        }
        seeds = REPLICATION if summary["replication"] is not None else DISCOVERY
        lines.append(
            {"variant": row["variant"], "seeds": seeds, "verdict": _verdict(differences[seeds]), **differences}
        )
    return lines


def _verdict(difference: Mapping[str, Any] | None) -> str:
    if difference is None or difference["p_holm"] is None:
        return NO_INTERVAL
    if difference["p_holm"] > ALPHA or difference["difference"] == 0:
        return NOT_SHOWN
    return HIGHER if difference["difference"] > 0 else LOWER
