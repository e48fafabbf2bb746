"""The publication's statements over several trainings of one recipe, with runs and problems as crossed random effects.

    from tokenshift.analysis import summarise_runs
    summarise_runs(["outputs/a/table", "outputs/b/table", "outputs/c/table"])["kinds"]["rl"]["groups"]

One run says what its own training did; another seed may do something else. So every mean is taken in each run, and its
interval is that of `crossed_difference`: it holds for other runs of the recipe and for other problems. A mean is a
ratio of sums over problems, R = sum(s) / sum(c); each problem enters by its linearised value
R + (s_p - R c_p) / mean(c), whose mean is R and whose spread is that of R to first order.

Shape legend: S runs, P problems.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tokenshift.analysis.report.numbers import PERCENT, interval_text
from tokenshift.analysis.report.statements import (
    FEWEST_PROBLEMS,
    NOT_SEEN,
    OPEN,
    SEEN,
    Statement,
    of_runs,
    of_this_run,
    within,
)
from tokenshift.analysis.shift.binned_means import (
    Measure,
    entropy_terms,
    mean_terms,
    mechanics_terms,
    relative_position_terms,
    response_terms,
    sparsity_terms,
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
    SFT_DENSER,
    STEEP,
    ShareClaim,
    percent_text,
    position_parts,
    statements,
)
from tokenshift.analysis.shift.exact_zeros import EXACT_ZERO
from tokenshift.analysis.shift.summary import ProblemSums, default_measure, problem_sums, summarise
from tokenshift.analysis.statistics.crossed_design import (
    CrossedDifference,
    crossed_groups,
    seed_difference,
)
from tokenshift.analysis.statistics.linearised import linearised
from tokenshift.analysis.statistics.over_runs import mean_over_runs, run_entry, within_bounds
from tokenshift.analysis.token_table.measure import TRUNCATED_JS, second_measure, source_metadata, source_truncation
from tokenshift.analysis.token_table.reader import Source, column_names

RUN_MEASURES: tuple[Measure, ...] = (
    sparsity_terms,
    mean_terms,
    relative_position_terms,
    entropy_terms,
    mechanics_terms,
    response_terms,
)
"""The means that are taken over runs."""

ONLY = "RL"
"""Name of the group of runs where the caller names none."""

SFT = "SFT"
"""Name of the group of runs that are the dense control."""

DAPO, SIMPLE_RL = "dapo", "simplerl"
"""Names of groups, in lower case, whose comparison is the publication's."""

NO_SUCH_RUNS = "no such runs"

ALIKE = (
    *("base_model", "base_revision", "dataset", "samples", "temperature", "top_p", "max_new_tokens"),
    *("reward", "correct_threshold", "trajectories", "prompts"),
)
"""Metadata that the tables of all runs must have in common: runs differ by their training alone."""


@dataclass(frozen=True)
class Run:
    """One trained model's shift.

    Attributes:
        name: The model's name.
        metadata: What the table's rows come from.
        top_p: What `js_top_p` truncates to; None if it is not known.
        kinds: Summaries of `summarise` by kind of trajectory, by measure.
        sums: Sums by problem by kind of trajectory, by measure.
    """

    name: str
    metadata: Mapping[str, Any]
    top_p: float | None
    kinds: Mapping[str, Mapping[str, Any]]
    sums: Mapping[str, Mapping[str, ProblemSums]]


def run_of_table(
    source: Source,
    name: str,
    measure: str,
    *,
    kinds: Mapping[str, Mapping[str, Any]] | None = None,
    resamples: int = 1000,
) -> Run:
    """A run from its per-token table, by a measure and, where there is one, the measure of the second column.

    Args:
        source: The table.
        name: The model's name.
        measure: The column that counts as the divergence.
        kinds: Summaries by measure that were made before; others are made of the table.
        resamples: Number of resamples of the bootstrap for the run's own intervals.

    Raises:
        ValueError: As of `summarise`.
    """
    second = second_measure(measure, column_names(source))
    names = [measure] if second is None else [measure, second]
    top_p = source_truncation(source)
    summaries = dict(kinds or {})
    for missing in (name for name in names if name not in summaries):
        summaries[missing] = summarise(source, measure=missing, resamples=resamples)
    sums = {name: problem_sums(source, measure=name, measures=RUN_MEASURES) for name in names}
    return Run(name, source_metadata(source), top_p, {name: summaries[name] for name in names}, sums)


def check_origins(metadata: Mapping[str, Mapping[str, Any]], keys: Sequence[str] = ALIKE) -> None:
    """Refuse runs whose tables do not differ by their training alone, as far as metadata tell.

    Args:
        metadata: The metadata of each run's table, by the run's name.
        keys: The metadata that all have in common.

    Raises:
        ValueError: In one line.
    """
    (first, expected), *others = metadata.items()
    for name, given in others:
        for key in keys:
            if given.get(key) != expected.get(key):
                difference = (
                    f"other problems than {first!r}"
                    if key == "prompts"
                    else f"{key}={given.get(key)!r}, not {expected.get(key)!r} as {first!r}"
                )
                raise ValueError(
                    f"The run {name!r} has {difference}; runs of one statement differ by their training alone."
                )


def check_alike(runs: Sequence[Run], keys: Sequence[str] = ALIKE) -> None:
    """Refuse runs that do not differ by their training alone, or of which two are the same.

    Args:
        runs: The runs.
        keys: The metadata that all have in common.

    Raises:
        ValueError: In one line.
    """
    check_origins({run.name: run.metadata for run in runs}, keys)
    first = runs[0]
    for run in runs[1:]:
        if run.kinds.keys() != first.kinds.keys():
            raise ValueError(f"The tables of {first.name!r} and {run.name!r} do not both have js and js_top_p.")
        for measure, kinds in first.sums.items():
            for kind in kinds.keys() & run.sums[measure].keys():
                if not np.array_equal(kinds[kind].problem_ids, run.sums[measure][kind].problem_ids):
                    raise ValueError(f"The runs {first.name!r} and {run.name!r} have not the same problems.")
    for one, other in itertools.combinations(runs, 2):
        if _same_numbers(one, other):
            raise ValueError(
                f"The runs {one.name!r} and {other.name!r} have the same numbers for every problem: they are the same "
                "model twice. Give another training."
            )


def _same_numbers(one: Run, other: Run) -> bool:
    for measure, kinds in one.sums.items():
        for kind, sums in kinds.items():
            others = other.sums[measure].get(kind)
            if others is None or not np.array_equal(sums.sums["mean"], others.sums["mean"]):
                return False
    return True


# From sums to values by run and problem --------------------------------------------------------------------------


class RunGroup:
    """The runs of one recipe, along one kind of trajectory and by one measure.

    Args:
        runs: S runs, alike by `check_alike`.
        kind: The kind of trajectory.
        measure: The measure.

    Attributes:
        sums: The sums of each run.
        groups: The group `all` of each run's summary.
    """

    def __init__(self, runs: Sequence[Run], kind: str, measure: str) -> None:
        self.sums = [run.sums[measure][kind] for run in runs]
        self.groups = [run.kinds[measure][kind]["all"] for run in runs]

    def __len__(self) -> int:
        return len(self.sums)

    @property
    def problems(self) -> int:
        """The number P of problems."""
        return len(self.sums[0].problem_ids)

    def values(self, name: str, label: str) -> np.ndarray | None:
        """Values `(S, P)` of a mean at a label; None where some run has no term of it."""
        rows = []
        for sums in self.sums:
            if name not in sums.labels or label not in sums.labels[name]:
                return None
            index = list(sums.labels[name]).index(label)
            rows.append(linearised(sums.sums[name][:, index], sums.counts[name][:, index]))
        return None if any(row is None for row in rows) else np.stack([row for row in rows if row is not None])

    def estimate(self, name: str, label: str) -> dict[str, Any] | None:
        """`mean_over_runs` of a mean at a label."""
        return mean_over_runs(self.values(name, label))


def _difference_entry(difference: CrossedDifference) -> dict[str, Any]:
    return {"value": difference.difference, "low": difference.low, "high": difference.high}


# Verdicts --------------------------------------------------------------------------------------------------------


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


# All of them -----------------------------------------------------------------------------------------------------


def summarise_runs(
    tables: Sequence[Source] | Mapping[str, Sequence[Source]],
    *,
    sft: Sequence[Source] = (),
    measure: str | None = None,
    resamples: int = 1000,
) -> dict[str, Any]:
    """The publication's statements over several trainings, each with its per-token table.

    Args:
        tables: the tables of the runs of one recipe, all along the same problems; or of several recipes by name. The
            publication compares `dapo` with `simplerl`.
        sft: the tables of SFT controls, along the same problems.
        measure: the column that counts as the divergence, as of `summarise`.
        resamples: number of resamples of the bootstrap for the intervals of single runs.

    Returns:
        `runs_summary`.

    Raises:
        ValueError: for a table that `summarise` refuses, runs that do not differ by their training alone, or the same
            run twice.
    """
    groups = tables if isinstance(tables, Mapping) else {ONLY: tables}
    flat = [source for sources in (*groups.values(), sft) for source in sources]
    if not flat or not all(groups.values()):
        raise ValueError("There is no run: give at least one table of each recipe.")
    chosen = measure or default_measure(flat[0])
    names = _names(flat)
    check_origins({name: source_metadata(source) for name, source in zip(names, flat, strict=True)})
    runs = iter(
        [run_of_table(source, name, chosen, resamples=resamples) for source, name in zip(flat, names, strict=True)]
    )
    of_groups = {name: [next(runs) for _ in sources] for name, sources in groups.items()}
    return runs_summary(of_groups, list(runs), measure=chosen)


def _names(sources: Sequence[Source]) -> list[str]:
    """The models' names by the tables' metadata, or numbers where these are missing or tell no runs apart."""
    names = [source_metadata(source).get("rl_model") for source in sources]
    if None in names or len(set(names)) < len(names):
        return [f"run {number}" for number in range(1, len(names) + 1)]
    return [str(name) for name in names]


def runs_summary(groups: Mapping[str, Sequence[Run]], sft: Sequence[Run] = (), *, measure: str) -> dict[str, Any]:
    """The statements over several runs, ready for JSON.

    Args:
        groups: The runs of each recipe, by its name.
        sft: The runs of SFT controls.
        measure: The measure by which statements are judged; the other one is in second columns.

    Returns:
        `measure`, `second`, `top_p`; `groups` and `sft`, the names of the runs; and `kinds`, by kind of trajectory:
        `problems`; `groups`, by recipe (and `SFT`, without statements) `statements` and `numbers`; and `comparisons`.
        A statement has `text`, `published`, `runs` (a dictionary per run: `run`, `measured`, `verdict` and the same by
        the other measure), `measured`, `verdict` (`seen in this run` with one run, `open: 2 runs are too few` with
        two), `estimate` (of `mean_over_runs`), and `second` and `second_verdict` by the other measure. `numbers` has
        estimates by mean and label. A comparison has `groups`, the two that are compared, and the same without `runs`.

    Raises:
        ValueError: As of `check_alike`.
    """
    every = [run for runs in (*groups.values(), sft) for run in runs]
    check_alike(every)
    second = next((name for name in every[0].kinds if name != measure), None)
    first_kinds = every[0].kinds[measure]
    kinds = [kind for kind in first_kinds if all(kind in run.kinds[measure] for run in every)]
    return {
        "measure": measure,
        "second": second,
        "top_p": every[0].top_p,
        "groups": {name: [run.name for run in runs] for name, runs in groups.items()},
        "sft": [run.name for run in sft],
        "kinds": {kind: _kind(groups, sft, kind, measure, second) for kind in kinds},
    }


def _kind(
    groups: Mapping[str, Sequence[Run]], sft: Sequence[Run], kind: str, measure: str, second: str | None
) -> dict[str, Any]:
    measures = [measure] if second is None else [measure, second]
    by_measure = [{name: RunGroup(runs, kind, one) for name, runs in groups.items()} for one in measures]
    controls = [RunGroup(sft, kind, one) for one in measures] if sft else []
    comparisons = [
        _compared(pair, text, published, names)
        for pair, text, published, names in _pairs(by_measure, controls, list(groups))
    ]
    listed = {name: _group(runs, [of_measure[name] for of_measure in by_measure]) for name, runs in groups.items()}
    if sft:
        listed[SFT] = {"statements": [], "numbers": _numbers(controls[0])}
    return {"problems": by_measure[0][next(iter(groups))].problems, "groups": listed, "comparisons": comparisons}


def compared_across_prompts(groups: Mapping[str, Sequence[Run]], kind: str, *, measure: str) -> list[dict[str, Any]]:
    """Which recipe's shifts are denser, where each recipe's models were asked by a prompt of their own.

    Args:
        groups: The runs of each recipe, by its name; of the same problems, alike but for their prompts.
        kind: The kind of trajectory.
        measure: The measure by which statements are judged; the other one is in second columns.

    Returns:
        `comparisons` of `runs_summary`.

    Raises:
        ValueError: As of `check_alike`.
    """
    every = [run for runs in groups.values() for run in runs]
    check_alike(every, [key for key in ALIKE if key != "prompts"])
    measures = [measure, *(name for name in every[0].kinds if name != measure)]
    by_measure = [{name: RunGroup(runs, kind, one) for name, runs in groups.items()} for one in measures]
    return [_compared(*pair) for pair in _pairs(by_measure, [], list(groups))]


def _group(runs: Sequence[Run], by_measure: Sequence[RunGroup]) -> dict[str, Any]:
    alone = [
        statements(first, second=by_measure[1].groups[index] if len(by_measure) > 1 else None)
        for index, first in enumerate(by_measure[0].groups)
    ]
    together = [judged_over_runs(group) for group in by_measure]
    entries = []
    for index, judged in enumerate(together[0]):
        of_each = [_alone(run, of_run[index]) for run, of_run in zip(runs, alone, strict=True)]
        entry: dict[str, Any] = {"text": judged.text, "published": judged.published, "runs": of_each}
        entry["estimate"] = judged.estimate
        if len(runs) == 1:
            entry |= {name: value for name, value in of_each[0].items() if name != "run"}
        else:
            entry |= {"measured": judged.measured, "verdict": of_runs(judged.verdict, len(runs))}
            if len(together) > 1:
                other = together[1][index]
                entry |= {"second": other.measured, "second_verdict": of_runs(other.verdict, len(runs))}
        entries.append(entry)
    return {"statements": entries, "numbers": _numbers(by_measure[0])}


def _alone(run: Run, statement: Statement) -> dict[str, Any]:
    entry = {"run": run.name, "measured": statement.measured, "verdict": of_this_run(statement.verdict)}
    if statement.second is not None:
        entry |= {"second": statement.second, "second_verdict": of_this_run(statement.second_verdict)}
    return entry


def _numbers(runs: RunGroup) -> dict[str, dict[str, Any]]:
    return {
        name: {label: runs.estimate(name, label) for label in runs.sums[0].labels[name]}
        for name in ("response", "sparsity", "exact_zero", "at_exact_zero", "mean", *_MECHANICS)
        if name in runs.sums[0].labels
    }


_MECHANICS = ("overlap_high", "rank_high", "improbable_high")

Pair = tuple[list[tuple[RunGroup, RunGroup]], str, str, tuple[str, str]]
"""Two groups by each measure, the first said to be denser; the statement, the published figure, and their names."""


def _pairs(
    by_measure: Sequence[Mapping[str, RunGroup]], controls: Sequence[RunGroup], names: Sequence[str]
) -> list[Pair]:
    pairs: list[Pair] = []
    for name in names if controls else ():
        text = SFT_DENSER[0] if len(names) == 1 else f"{SFT_DENSER[0]} than {name}'s"
        groups = [(control, of_measure[name]) for control, of_measure in zip(controls, by_measure, strict=True)]
        pairs.append((groups, text, SFT_DENSER[1], (SFT, name)))
    for first, second in itertools.combinations(names, 2):
        if (first.lower(), second.lower()) == (SIMPLE_RL, DAPO):
            first, second = second, first  # as the publication has it
        published = (first.lower(), second.lower()) == (DAPO, SIMPLE_RL)
        text = DAPO_DENSER[0] if published else f"{first}'s shifts are denser than {second}'s"
        groups = [(of_measure[first], of_measure[second]) for of_measure in by_measure]
        pairs.append((groups, text, DAPO_DENSER[1] if published else "-", (first, second)))
    if not any(text == DAPO_DENSER[0] for _, text, _, _ in pairs):
        pairs.append(([], *DAPO_DENSER, ("DAPO", "SimpleRL")))
    return pairs


DAPO_DENSER = ("DAPO's shifts are denser than SimpleRL's", "near zero > 83 % against > 98 %")


def _compared(
    pair: Sequence[tuple[RunGroup, RunGroup]], text: str, published: str, names: tuple[str, str]
) -> dict[str, Any]:
    entry: dict[str, Any] = {"text": text, "published": published, "groups": list(names)}
    if not pair:
        return entry | {"measured": NO_SUCH_RUNS, "verdict": OPEN, "estimate": None}
    fewest = min(len(runs) for runs in pair[0])
    judged = [denser(*groups, text, published, names) for groups in pair]
    entry |= {"measured": judged[0].measured, "verdict": of_runs(judged[0].verdict, fewest)}
    entry["estimate"] = judged[0].estimate
    if len(judged) > 1:
        entry |= {"second": judged[1].measured, "second_verdict": of_runs(judged[1].verdict, fewest)}
    return entry
