"""The figure of several trainings: shares in each run, and their means over runs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tokenshift.analysis.figures.kit import LOOKS, Look, heading, legend, tidy
from tokenshift.analysis.figures.style import GREY, PURPLE, style
from tokenshift.analysis.report.numbers import PERCENT
from tokenshift.analysis.shift.claims import CANDIDATE_CLAIMS, NEAR_ZERO_CLAIM, OVERLAP_CLAIM, ShareClaim
from tokenshift.analysis.shift.exact_zeros import EXACT_ZERO
from tokenshift.analysis.thresholds import HIGH, IMPROBABLE, NEAR_ZERO

SHARES = {
    NEAR_ZERO_CLAIM: f"JS < {NEAR_ZERO:g}",
    ShareClaim("", "", "exact_zero", EXACT_ZERO): "JS at top-p exactly 0",
    OVERLAP_CLAIM: f"top-2 overlap, JS > {HIGH:g}",
    CANDIDATE_CLAIMS[0]: "RL's top-1 is base's top-1 there",
    CANDIDATE_CLAIMS[1]: "RL's top-1 in base's top 3 there",
    CANDIDATE_CLAIMS[2]: f"RL's top-1 improbable (< {IMPROBABLE:g}) there",
}
"""The shares that are drawn, and their names; the limits are those of the statements."""

GROUP_LOOKS = (*LOOKS.values(), Look(PURPLE, "D"), Look(GREY, "v"))


def shares_of_runs(groups: Mapping[str, Mapping[str, Any]], title: str) -> Figure:
    """Shares of tokens over runs in per cent: a point per run, a mean with its 95 % interval per group of runs.

    Args:
        groups: `numbers` of each group of runs, of `runs_summary`.
        title: The figure's title.
    """
    rows = list(SHARES.items())
    with style():
        figure = Figure(figsize=(7.0, 1.3 + (0.3 + 0.22 * len(groups)) * len(rows)), layout="constrained")
        axes = figure.subplots()
        for index, (claim, _) in enumerate(rows):
            if np.isinf([claim.above, claim.below]).all():
                continue
            low, high = max(claim.above, 0.0), min(claim.below, 1.0)
            axes.fill_betweenx(
                [index - 0.45, index + 0.45], PERCENT * low, PERCENT * high, color=GREY, alpha=0.15, linewidth=0
            )
        for number, (name, numbers) in enumerate(groups.items()):
            look = GROUP_LOOKS[number % len(GROUP_LOOKS)]
            for index, (claim, _) in enumerate(rows):
                mean = numbers.get(claim.name, {}).get(claim.label)
                if mean is None:
                    continue
                height = index + 0.7 * ((number + 0.5) / len(groups) - 0.5)
                runs = PERCENT * np.array(mean["runs"])
                axes.plot(runs, np.full(len(runs), height + 0.12), look.marker, color=look.color, alpha=0.45, ms=3)
                value = PERCENT * mean["value"]
                ends = [mean["value"] if mean[end] is None else mean[end] for end in ("low", "high")]
                reach = [[value - PERCENT * max(0.0, ends[0])], [PERCENT * min(1.0, ends[1]) - value]]
                axes.errorbar(
                    [value],
                    [height],
                    xerr=np.maximum(reach, 0),
                    fmt=look.marker,
                    color=look.color,
                    ms=5,
                    capsize=2,
                    label=name if index == 0 else None,
                )
        axes.set_yticks(range(len(rows)), [words for _, words in rows])
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("% of tokens")
        if len(groups) > 1:
            legend(figure, axes)
        count = ", ".join(f"{name}: n = {_count(numbers)} runs" for name, numbers in groups.items())
        heading(figure, title, count)
        tidy(figure)
    return figure


def _count(numbers: Mapping[str, Any]) -> int:
    return len(numbers[NEAR_ZERO_CLAIM.name][NEAR_ZERO_CLAIM.label]["runs"])
