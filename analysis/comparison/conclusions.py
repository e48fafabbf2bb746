"""The numbers that sum up a comparison, each with its interval and a sentence: what a reader sees first."""

from collections.abc import Mapping
from typing import Any

from tokenshift.analysis.comparison.outcomes import OUTCOMES
from tokenshift.analysis.comparison.verdicts import HIGHER, LOWER, NO_INTERVAL, REPLICATION
from tokenshift.analysis.report.conclusions import Conclusion, points_conclusion, share_conclusion
from tokenshift.analysis.report.numbers import PERCENT

MOST_VARIANTS = 4
"""Variants that the page begins with; all are in the table of verdicts."""


def comparison_conclusions(summary: Mapping[str, Any]) -> list[Conclusion]:
    """The conclusions of a comparison: the baseline's outcome, and the variants that differ most from it.

    Variants whose difference is shown come first, the larger difference first; then the others in the same order.

    Args:
        summary: The numbers of `comparison_summary`.
    """
    words, seeds_of = OUTCOMES[summary["outcome"]["name"]].words, summary["replication"] or summary
    baseline = next(row for row in seeds_of["variants"] if row["variant"] == summary["baseline"])
    found, level = [], baseline[OUTCOMES[summary["outcome"]["name"]].key]
    kind = "replication seeds" if summary["replication"] is not None else "seeds"
    if level["value"] is not None:
        count = len(baseline["seeds"])
        sentence = f"is the {words} of {summary['baseline']}, over {count} {kind if count != 1 else kind[:-1]}."
        found.append(share_conclusion({"low": None, "high": None, **level}, sentence))
    compared = [one for one in summary["verdicts"] if one[one["seeds"]] is not None]
    compared.sort(key=lambda one: (one["verdict"] not in (HIGHER, LOWER), -abs(one[one["seeds"]]["difference"])))
    return found + [_difference(one, summary["baseline"], words) for one in compared[:MOST_VARIANTS]]


def _difference(verdict: Mapping[str, Any], baseline: str, words: str) -> Conclusion:
    """The conclusion on how much a variant's outcome differs from the baseline's."""
    difference = verdict[verdict["seeds"]]
    sentence = f"is the difference of {verdict['variant']} to {baseline} in the {words}"
    if verdict["verdict"] == NO_INTERVAL:
        sentence += ", of one seed each"
    elif verdict["verdict"] in (HIGHER, LOWER):
        sentence += f": {verdict['verdict']}, {_p_words(difference['p_holm'])}"
    else:
        sentence += f": not shown, {_p_words(difference['p_holm'])}"
        if difference.get("detectable") is not None:
            sentence += (
                f"; a true one of {PERCENT * difference['detectable']:.1f} points is found with a power of 80 %"
            )
    if verdict["seeds"] == REPLICATION:
        sentence += ", by the replication seeds"
    mark = "" if difference.get("coverage") is None else "≈ "
    return points_conclusion(difference["difference"], difference["low"], difference["high"], f"{sentence}.", mark)


def _p_words(p_value: float) -> str:
    """A p-value that is corrected over the variants."""
    return f"p {'< 0.001' if p_value < 0.001 else f'= {p_value:.3f}'} after Holm"
