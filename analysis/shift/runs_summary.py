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
from collections.abc import Mapping, Sequence
from typing import Any

from tokenshift.analysis.report.statements import (
    OPEN,
    Statement,
    of_runs,
    of_this_run,
)
from tokenshift.analysis.shift.claims import (
    SFT_DENSER,
    statements,
)
from tokenshift.analysis.shift.group_names import DAPO, ONLY, SFT, SIMPLE_RL
from tokenshift.analysis.shift.runs import ALIKE, Run, RunGroup, check_alike, check_origins, run_of_table
from tokenshift.analysis.shift.runs_verdicts import denser, judged_over_runs
from tokenshift.analysis.shift.summary import default_measure
from tokenshift.analysis.token_table.measure import source_metadata
from tokenshift.analysis.token_table.reader import Source

NO_SUCH_RUNS = "no such runs"


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
    """Verdicts on which recipe's shifts are denser, where each recipe's models were asked by their own prompt.

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
