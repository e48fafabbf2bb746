"""Parts of a figure that show its measure: the label of an axis, the exact zeros, and the other measure beside it."""

from tokenshift.analysis.figures.kit import Look, Numbers
from tokenshift.analysis.figures.style import GREY
from tokenshift.analysis.shift.exact_zeros import EXACT_ZERO
from tokenshift.analysis.shift.summary import group_estimate
from tokenshift.analysis.token_table.measure import FULL_JS, SHIFT_MEASURES, TRUNCATED_JS, measure_label, measure_name

SECOND = Look(GREY, "x", ":")
"""Look of all responses by the other measure."""


def group_name(group: Numbers) -> str:
    """The measure of a group of `summarise` in words."""
    return measure_name(group.get("measure", FULL_JS), group.get("top_p"))


def group_label(group: Numbers) -> str:
    """The measure of a group of `summarise` as the label of an axis, nats."""
    return measure_label(group.get("measure", FULL_JS), group.get("top_p"))


def second_label(group: Numbers) -> str:
    """Legend of all responses by the other measure."""
    return f"all, {group_name(group)} (n = {group['tokens']:,})"


def exact_zero_share(group: Numbers) -> float | None:
    """Share of a group's tokens whose JS is exactly 0; None where the measure is not the truncated one."""
    zero = group_estimate(group, "exact_zero", EXACT_ZERO) if group.get("measure") == TRUNCATED_JS else None
    return None if zero is None else float(zero["value"])


def measure_sentence(group: Numbers) -> str:
    """A caption's sentence on the JS of a group of `summarise`, or of a row of `evolution_rows`."""
    if group.get("measure", FULL_JS) not in SHIFT_MEASURES:
        return f"JS stands for the column {group['measure']}."
    if group.get("measure") != TRUNCATED_JS:
        return "JS is between whole distributions."
    cut = "top-p" if group.get("top_p") is None else f"top-p {group['top_p']:g}"
    return f"JS is between distributions truncated to {cut}, as published."
