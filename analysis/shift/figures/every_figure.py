"""All figures of a summary's numbers, each with its caption."""

from matplotlib.figure import Figure

from tokenshift.analysis.figures.kit import Numbers, counts_text
from tokenshift.analysis.shift.exact_zero_words import exact_zero_words

# these modules register their figures, in the order of the page
from tokenshift.analysis.shift.figures import characterisation, mechanics  # noqa: F401
from tokenshift.analysis.shift.figures.registry import SUMMARY_FIGURES
from tokenshift.analysis.shift.figures.second_column import group_name, measure_sentence
from tokenshift.analysis.thresholds import HIGH, IMPROBABLE, NEAR_ZERO
from tokenshift.analysis.token_table.measure import TRUNCATED_JS


def summary_figures(
    groups: Numbers, title: str, control: Numbers | None = None, second: Numbers | None = None
) -> dict[str, tuple[Figure, str]]:
    """Every figure that the numbers allow, by file name, with a caption in plain text.

    Args:
        groups: the groups of one kind of trajectory, from `summarise`.
        title: title of every figure.
        control: groups of another summary, drawn dashed in the first two figures.
        second: groups by the other measure, drawn thin where a figure is set beside the publication's.
    """
    words = caption_words(groups, control, second)
    return SUMMARY_FIGURES.draw(groups, title, words=words, control=control, second=second)


def caption_words(groups: Numbers, control: Numbers | None = None, second: Numbers | None = None) -> dict[str, str]:
    """The words that captions have in braces.

    Args:
        groups: the groups of one kind of trajectory, from `summarise`.
        control: groups of another summary, which some figures draw dashed.
        second: groups by the other measure, which some figures draw thin.

    Returns:
        `n`: tokens, responses and problems; `tokens`: their number; `interval`: what bands and whiskers are;
        `high`, `near_zero`, `improbable`: the thresholds; `thresholds`: a sentence that says whose they are;
        `high_positions`: the number of high positions, and the threshold; `dashed`, `second`: sentences about the
        control and the other measure, empty without one; `zeros`: exact zeros of a truncated JS, and the full JS
        there; `measure`: what JS is. The last four begin with a blank.
    """
    group = groups["all"]
    interval = f"95 % bootstrap intervals, resampled by problem ({group['problems']:,})"
    if group["problems"] < 2:
        interval = "95 % bootstrap intervals by problem, which have no meaning here, with a single problem"
    zeros = exact_zero_words(group) if group.get("measure") == TRUNCATED_JS else ""
    high_positions = group["means"].get("overlap_high", {"n": [0]})["n"][0]
    return {
        "n": counts_text(group),
        "tokens": f"{group['tokens']:,}",
        "interval": interval,
        "high": f"{HIGH:g}",
        "near_zero": f"{NEAR_ZERO:g}",
        "improbable": f"{IMPROBABLE:g}",
        "thresholds": f"Near zero: JS < {NEAR_ZERO:g}, this project's value; high: JS > {HIGH:g}, the publication's "
        "value.",
        "high_positions": f"{high_positions:,} positions with JS > {HIGH:g}, the publication's threshold",
        "zeros": f" {zeros}" if zeros else "",
        "measure": f" {measure_sentence(group)}",
        "second": f" Thin: all responses by {group_name(second['all'])}." if second else "",
        "dashed": f" Dashed: all responses of the control, n = {control['all']['tokens']:,} tokens."
        if control
        else "",
    }
