"""The verdict of several runs together on each of the publication's statements, with runs and problems as crossed
random effects.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tokenshift.analysis.report.numbers import PERCENT, interval_text
from tokenshift.analysis.report.statements import (
    FEWEST_PROBLEMS,
    NOT_SEEN,
    OPEN,
    SEEN,
    within,
)
from tokenshift.analysis.shift.claims import (
    CANDIDATE_CLAIMS,
    ENTROPY_CLAIMS,
    FEWEST_TOKENS,
    FREQUENT_LOW,
    NEAR_ZERO_CLAIM,
    NO_TOKEN,
    OVERLAP_CLAIM,
    OVERLAP_RISES,
    POSITION_CLAIMS,
    POSITION_PUBLISHED,
    STEEP,
    ShareClaim,
    percent_text,
    position_parts,
)
from tokenshift.analysis.shift.exact_zeros import EXACT_ZERO
from tokenshift.analysis.shift.runs import RunGroup
from tokenshift.analysis.statistics.crossed_design import (
    CrossedDifference,
    crossed_groups,
    seed_difference,
)
from tokenshift.analysis.statistics.over_runs import mean_over_runs, run_entry, within_bounds
from tokenshift.analysis.token_table.measure import TRUNCATED_JS


@dataclass(frozen=True)
class OverRuns:
    """The verdict of several runs on a statement.

    Attributes:
        text, published: The statement and the published figure.
        measured: The mean over runs in words, with its interval.
        verdict: `seen`, `not seen` or `open`.
        estimate: The mean over runs, as `mean_over_runs` gives it; None where there is no single one.
    """

    text: str
    published: str
    measured: str
    verdict: str
    estimate: dict[str, Any] | None = None


def judged_over_runs(runs: RunGroup) -> list[OverRuns]:
    """The statements of `statements` from runs and problems together, in the same order; fewer than 5 problems leave
    them open."""
    judged = [
        _sparsity(runs),
        *_positions(runs),
        *(_share(runs, claim) for claim in ENTROPY_CLAIMS),
        _identity(runs),
        _share(runs, OVERLAP_CLAIM),
        _rise(runs),
        *(_share(runs, claim) for claim in CANDIDATE_CLAIMS),
    ]
    return [_enough_problems(statement, runs.problems) for statement in judged]


def _enough_problems(statement: OverRuns, problems: int) -> OverRuns:
    if problems >= FEWEST_PROBLEMS:
        return statement
    return replace(statement, measured=f"{statement.measured}; of {problems} problems", verdict=OPEN)


def _missing(runs: RunGroup, name: str, label: str) -> str:
    """The words for a mean that not every run has."""
    without = sum(not sums.counts[name][:, list(sums.labels[name]).index(label)].any() for sums in runs.sums)
    return f"{NO_TOKEN} in {without} of {len(runs)} runs"


def _share(runs: RunGroup, claim: ShareClaim) -> OverRuns:
    mean = runs.estimate(claim.name, claim.label)
    if mean is None:
        return OverRuns(claim.text, claim.published, _missing(runs, claim.name, claim.label), OPEN)
    measured = claim.words.format(percent_text(within_bounds(mean)))
    return OverRuns(claim.text, claim.published, measured, within(mean, claim.above, claim.below), mean)


def _sparsity(runs: RunGroup) -> OverRuns:
    """The share of near-zero tokens, and beside a truncated one the exact zeros in it."""
    statement, zeros = _share(runs, NEAR_ZERO_CLAIM), runs.estimate("exact_zero", EXACT_ZERO)
    if zeros is None or runs.groups[0]["measure"] != TRUNCATED_JS:
        return statement
    full = runs.estimate("at_exact_zero", "js")
    largest = max(group["js_max_at_exact_zero"] or 0.0 for group in runs.groups)
    there = "" if full is None else f" (full JS there {full['value']:.2g} on average, up to {largest:.2g} nats)"
    return replace(statement, measured=f"{statement.measured}; exactly 0: {PERCENT * zeros['value']:.1f} %{there}")


def _side(difference: Mapping[str, Any] | None) -> str:
    """Seen where a difference's whole interval lies above 0, not seen where none of it does."""
    if difference is None or difference["low"] is None:
        return OPEN
    return SEEN if difference["low"] > 0 else NOT_SEEN if difference["high"] <= 0 else OPEN


def _positions(runs: RunGroup) -> list[OverRuns]:
    """The start and the end of responses against their middle, by the difference in each run and problem."""
    labels = runs.sums[0].labels["position_relative"]
    averages: dict[str, np.ndarray | None] = {}
    for name, (first, last) in position_parts(len(labels)).items():
        bins = [runs.values("position_relative", label) for label in labels[first:last]]
        filled = [values for values in bins if values is not None]
        averages[name] = np.mean(filled, axis=0) if filled else None
    means = {name: mean_over_runs(values) for name, values in averages.items()}
    measured = ", ".join(
        f"{name} {interval_text(mean and within_bounds(mean, math.inf), missing='none')}"
        for name, mean in means.items()
    )
    middle = averages["middle"]
    judged = []
    for name, text in POSITION_CLAIMS.items():
        outer = averages[name]
        difference = None if outer is None or middle is None else mean_over_runs(outer - middle)
        words = f"{measured} nats; {name} less middle {interval_text(difference, missing='none')}"
        judged.append(OverRuns(text, POSITION_PUBLISHED, words, _side(difference), difference))
    return judged


def _identity(runs: RunGroup) -> OverRuns:
    """The share of frequent tokens that lie mostly low, one number per run."""
    shares = [group["identity"]["frequent_mostly_low"] for group in runs.groups]
    if None in shares:
        return OverRuns(*FREQUENT_LOW, f"no high token in {shares.count(None)} of {len(runs)} runs", OPEN)
    mean = run_entry(seed_difference(np.array(shares)), np.array(shares))
    few = min(len(group["identity"]["high"]) for group in runs.groups)
    verdict = OPEN if few < FEWEST_TOKENS else within(mean, above=0.5)
    return OverRuns(*FREQUENT_LOW, f"{percent_text(within_bounds(mean))} of a run's frequent tokens", verdict, mean)


def _rise(runs: RunGroup) -> OverRuns:
    one, two, three = (runs.values("overlap_high", label) for label in ("1", "2", "3"))
    if one is None or two is None or three is None:
        return OverRuns(*OVERLAP_RISES, _missing(runs, "overlap_high", "2"), OPEN)
    first, second = two - one, three - two
    steps = [mean_over_runs(step) for step in (first, second)]
    words = [interval_text(step, scale=PERCENT, digits=".1f") for step in steps]
    steep = within(steps[0], above=STEEP)
    ahead, twice = (_side(mean_over_runs(first - factor * second)) for factor in (1, 2))
    verdict = SEEN if steep == twice == SEEN else NOT_SEEN if NOT_SEEN in (steep, ahead) else OPEN
    return OverRuns(*OVERLAP_RISES, f"by {words[0]} points from 1 to 2, by {words[1]} from 2 to 3", verdict, steps[0])


def _difference_entry(difference: CrossedDifference) -> dict[str, Any]:
    return {"value": difference.difference, "low": difference.low, "high": difference.high}


def denser(first: RunGroup, second: RunGroup, text: str, published: str, names: tuple[str, str]) -> OverRuns:
    """Whether the shifts of one group of runs are denser than those of another: a smaller share is near zero.

    Args:
        first: The runs that are said to be denser.
        second: The others.
        text, published: The statement and the published figure.
        names: What the two groups are called.
    """
    name, label = NEAR_ZERO_CLAIM.name, NEAR_ZERO_CLAIM.label
    values = [runs.values(name, label) for runs in (first, second)]
    if values[0] is None or values[1] is None:
        return OverRuns(text, published, NO_TOKEN, OPEN)
    difference = _difference_entry(crossed_groups(values[1], values[0]))
    shares = [
        f"{percent_text(within_bounds(runs.estimate(name, label) or {}))} ({group}, {_runs(len(runs))})"
        for runs, group in zip((first, second), names, strict=True)
    ]
    points = interval_text(difference, scale=PERCENT, digits=".1f", unit=" points")
    statement = OverRuns(
        text, published, f"near zero {shares[0]} against {shares[1]}, {points} less", _side(difference), difference
    )
    return _enough_problems(statement, first.problems)


def _runs(count: int) -> str:
    return f"{count} {'run' if count == 1 else 'runs'}"
