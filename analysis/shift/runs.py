"""Several trainings of one recipe: what a run is, and the values of its means by problem.

Shape legend: S runs, P problems.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokenshift.analysis.shift.binned_means import (
    Measure,
    entropy_terms,
    mean_terms,
    mechanics_terms,
    relative_position_terms,
    response_terms,
    sparsity_terms,
)
from tokenshift.analysis.shift.summary import ProblemSums, problem_sums, summarise
from tokenshift.analysis.statistics.linearised import linearised
from tokenshift.analysis.statistics.over_runs import mean_over_runs
from tokenshift.analysis.token_table.measure import second_measure, source_metadata, source_truncation
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
