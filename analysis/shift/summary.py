"""All numbers of a per-token table, with 95 % bootstrap intervals by problem, read in batches.

from tokenshift.analysis import summarise
summarise("outputs/pocket/analysis/table")["rl"]["all"]["means"]["sparsity"]
"""

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tokenshift.analysis.shift.binned_means import MEASURES, Measure, SumsAndCounts, binned_sums, means_of_sums
from tokenshift.analysis.shift.exact_zeros import exact_zero_terms, largest_at_exact_zero
from tokenshift.analysis.shift.joint_counts import JOINT_ENTROPY, JOINT_JS, joint_counts
from tokenshift.analysis.shift.token_identity import frequent_tokens
from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap, interval
from tokenshift.analysis.thresholds import LOG_2
from tokenshift.analysis.token_table.columns import column
from tokenshift.analysis.token_table.measure import DEFAULT_MEASURE, FULL_JS, source_truncation
from tokenshift.analysis.token_table.reader import (
    KEYS,
    Source,
    arrow_source,
    column_names,
    listed_columns,
    response_batches,
    verdicts,
)
from tokenshift.analysis.token_table.schema import TABLE_SCHEMA

GROUPS = ("all", "correct", "incorrect")

CURVE_QUANTILES = (*np.arange(1, 20) / 20, 0.96, 0.97, 0.98, 0.99, 0.995, 0.999, 1.0)
"""Quantiles of the divergence that a summary has."""

LOG_BINS = np.concatenate([[0.0], np.geomspace(1e-10, LOG_2 * (1 + 1e-6), 600)])
"""Bins of JS that the intervals of quantiles are taken from, 4 % wide; the quantiles themselves are exact."""


class _Tally:
    """Sums over the rows of one group, batch by batch."""

    def __init__(self, measures: Sequence[Measure], measure: str, top_p: float | None) -> None:
        self._measures, self._measure, self._top_p = measures, measure, top_p
        self._labels: dict[str, Sequence[str]] = {}
        self._sums: dict[str, SumsAndCounts] = {}  # (problems seen so far, bins) each
        self._js: list[np.ndarray] = []
        self._problems: list[np.ndarray] = []
        self._token_ids: list[np.ndarray] = []
        self._joint = {name: joint_counts(np.zeros(0), np.zeros(0)) for name in _JOINT}
        self._largest_at_zero: float | None = None
        self.texts: dict[int, str] = {}
        self.responses = 0

    def add(self, table: pa.Table, problems: np.ndarray, known: int) -> None:
        """Add N rows of whole responses.

        Args:
            table: the rows.
            problems: `(N,)`, the number of each row's problem.
            known: how many problems have been seen so far.
        """
        if not table.num_rows:
            return
        for function in self._measures:
            for name, terms in function(table, self._measure).items():
                self._labels[name] = terms.labels
                added = binned_sums(terms, problems, known)
                before = self._sums.get(name)
                self._sums[name] = added if before is None else _total(added, before)
        js = column(table, self._measure)
        self._js.append(js)
        self._problems.append(problems)
        self._token_ids.append(column(table, "token_id"))
        largest = largest_at_exact_zero(table)
        if largest is not None:
            self._largest_at_zero = max(largest, self._largest_at_zero or 0.0)
        for name in _JOINT:
            self._joint[name] += joint_counts(js, column(table, name))
        ids, first = np.unique(self._token_ids[-1], return_index=True)
        self.texts |= dict(zip(ids.tolist(), table["token"].take(pa.array(first)).to_pylist(), strict=True))
        self.responses += int((column(table, "position") == 0).sum())

    def result(self, bootstrap: ProblemBootstrap) -> dict[str, Any]:
        """The numbers of the group."""
        js, problems = np.concatenate(self._js), np.concatenate(self._problems)
        numbers: dict[str, Any] = {
            "measure": self._measure,
            "top_p": self._top_p,
            "tokens": len(js),
            "responses": self.responses,
            "problems": len(np.unique(problems)),
            "means": {},
        }
        for name in self._labels:
            sums, counts = self.padded(name, bootstrap.weights.shape[1])
            low, high = interval(bootstrap.ratios(sums, counts))
            value = means_of_sums(sums.sum(axis=0), counts.sum(axis=0))
            numbers["means"][name] = _listed(self._labels[name], value, low, high, counts.sum(axis=0))
        numbers["js_max_at_exact_zero"] = self._largest_at_zero
        numbers["quantiles"] = _quantiles(js, problems, bootstrap)
        numbers["joint"] = {
            "js_edges": JOINT_JS.tolist(),
            "entropy_edges": JOINT_ENTROPY.tolist(),
            **{name: counts.tolist() for name, counts in self._joint.items()},
        }
        numbers["identity"] = frequent_tokens(np.concatenate(self._token_ids), js, problems, self.texts, bootstrap)
        return numbers

    def padded(self, name: str, problems: int) -> SumsAndCounts:
        """Sums and counts `(P, B)` of a mean, with rows for all P problems."""
        sums, counts = self._sums[name]
        return _grown(sums, problems), _grown(counts, problems)

    @property
    def labels_of(self) -> Mapping[str, Sequence[str]]:
        """The labels of every mean, by its name."""
        return self._labels

    def labels(self, name: str) -> Sequence[str] | None:
        """The labels of a mean; None where the group has no such mean."""
        return self._labels.get(name)


_JOINT = ("entropy_base", "entropy_rl")


def _grown(array: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([array, np.zeros((rows - len(array), array.shape[1]))])


def _total(added: SumsAndCounts, before: SumsAndCounts) -> SumsAndCounts:
    problems = len(added[0])
    return added[0] + _grown(before[0], problems), added[1] + _grown(before[1], problems)


def _listed(
    labels: Sequence[str], value: np.ndarray, low: np.ndarray, high: np.ndarray, count: np.ndarray
) -> dict[str, Any]:
    """The numbers as plain lists. JSON has no NaN: the mean of nothing is null."""
    arrays = {"value": value, "low": low, "high": high}
    lists = {name: [None if np.isnan(item) else float(item) for item in array] for name, array in arrays.items()}
    return {"labels": list(labels), **lists, "n": [int(item) for item in count]}


def _quantiles(js: np.ndarray, problems: np.ndarray, bootstrap: ProblemBootstrap) -> dict[str, Any]:
    rows, size = bootstrap.weights.shape[1], len(LOG_BINS) - 1
    bins = np.clip(np.searchsorted(LOG_BINS, js, side="right") - 1, 0, size - 1)
    counts = np.bincount(problems * size + bins, minlength=rows * size).reshape(rows, size)
    cumulative = np.cumsum(bootstrap.weights @ counts.astype(np.float32), axis=1)  # (R, bins)
    absent = cumulative[:, -1] == 0  # resamples without a problem of the group
    cumulative /= np.maximum(cumulative[:, -1:], 1)
    middles = np.minimum(np.sqrt(LOG_BINS[:-1] * LOG_BINS[1:]), LOG_2)
    first = [(cumulative < quantile - 1e-6).sum(axis=1).clip(max=size - 1) for quantile in CURVE_QUANTILES]
    samples = np.stack([middles[bins_of_resamples] for bins_of_resamples in first], axis=1)
    samples[absent] = np.nan
    low, high = interval(samples)
    value = np.quantile(js, CURVE_QUANTILES)
    labels = [f"{quantile:g}" for quantile in CURVE_QUANTILES]
    count = np.full(len(CURVE_QUANTILES), len(js))
    return _listed(labels, value, np.minimum(low, value), np.maximum(high, value), count)


def default_measure(source: Source) -> str:
    """The measure of a table where none is named: `js_top_p`, or `js` where the table has no such column."""
    return DEFAULT_MEASURE if DEFAULT_MEASURE in column_names(source) else FULL_JS


def _tallied(
    source: Source,
    measure: str,
    top_p: float | None,
    measures: Sequence[Measure],
    wanted_groups: Sequence[str] = GROUPS,
) -> tuple[dict[str, dict[str, _Tally]], dict[int, int]]:
    """Sums over the rows of a table by kind of trajectory and group, and the number of each problem by its id.

    Raises:
        ValueError: as of `summarise`.
    """
    names = column_names(source)
    if measure not in names:
        raise ValueError(f"measure={measure!r} is not a column of the table; it has {', '.join(names)}.")
    wanted = [name for name in TABLE_SCHEMA.names if name in names]
    if missing := [name for name in TABLE_SCHEMA.names if name not in names and name not in _OPTIONAL]:
        raise ValueError(f"The table has no {listed_columns(missing)}.")
    top_p = source_truncation(source) if top_p is None else top_p
    measures = (*measures, functools.partial(exact_zero_terms, top_p=top_p))
    tallies: dict[str, dict[str, _Tally]] = {}
    numbers: dict[int, int] = {}  # of problems, by id
    for batch in response_batches(source, [*wanted, *KEYS]):
        ids, index = np.unique(column(batch, "problem_id"), return_inverse=True)
        for problem in ids.tolist():
            numbers.setdefault(problem, len(numbers))
        problems = np.array([numbers[problem] for problem in ids.tolist()])[index]
        kinds = np.array(batch["trajectory"].to_pylist() if "trajectory" in names else ["rl"] * batch.num_rows)
        correct = verdicts(batch)
        for kind in np.unique(kinds):
            groups = tallies.setdefault(str(kind), {name: _Tally(measures, measure, top_p) for name in wanted_groups})
            for group, tally in groups.items():
                mask = kinds == kind
                if group != "all":
                    mask &= correct == (group == "correct")
                tally.add(batch.filter(pa.array(mask)), problems[mask], len(numbers))
    if not numbers:
        raise ValueError("The table is empty: there is nothing to summarise.")
    return tallies, numbers


def summarise(
    source: Source | pd.DataFrame,
    *,
    measure: str | None = None,
    top_p: float | None = None,
    measures: Sequence[Measure] = MEASURES,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Every summary of a per-token table, by kind of trajectory and for all, correct and incorrect responses.

    Args:
        source: a pyarrow table, a pandas DataFrame, a Parquet file or a folder of them; the rows of each response
            together, in order. Columns as `score_trajectories` writes them; without `trajectory` all rows are of one
            kind, `rl`. A DataFrame has lost the table's metadata: give `top_p` with it.
        measure: the column that counts as the divergence: `js_top_p`, of truncated distributions as the publication
            has it, or `js`, of whole ones. By default `js_top_p`; for a table without that column `js`, with a
            warning that says so.
        top_p: what `js_top_p` truncates to; by default what the table's metadata say. Without it exact zeros are
            counted, but not those of single-token nuclei.
        measures: the functions of `tokenshift.analysis.shift.binned_means` that are applied, or others like them.
        resamples: number of resamples of the bootstrap.
        seed: seed of the bootstrap.

    Returns:
        `{kind: {group: {...}}}`, plain data for JSON. A group has `measure` and `top_p`; `tokens`, `responses`,
        `problems`; `means`, by name `labels`, `value`, `low`, `high`, `n` (number of terms; a mean of none is None);
        `js_max_at_exact_zero`, the largest full JS where the truncated one is 0; `quantiles` of the divergence, in the
        same form as means; `joint`, counts by divergence and entropy; `identity`. Beside the groups
        `correct_minus_incorrect`, differences of means in the same form.

    Raises:
        ValueError: for a damaged file, a table without the needed columns, or no rows.
    """
    source = arrow_source(source)
    if measure is None:
        measure = default_measure(source)
        if measure == FULL_JS:
            warnings.warn(
                f"The table has no column {DEFAULT_MEASURE!r}, the publication's truncated JS; measured is {FULL_JS!r}"
                ", between whole distributions.",
                stacklevel=2,
            )
    tallies, numbers = _tallied(source, measure, top_p, measures)
    bootstrap = ProblemBootstrap(len(numbers), resamples, seed)
    # a problem gets the same weights in whichever order the rows come
    bootstrap.weights = bootstrap.weights[:, np.argsort(np.argsort(list(numbers)))]
    summary: dict[str, Any] = {}
    for kind, groups in tallies.items():
        filled = {name: tally for name, tally in groups.items() if tally.responses}
        summary[kind] = {name: tally.result(bootstrap) for name, tally in filled.items()}
        if {"correct", "incorrect"} <= filled.keys():
            summary[kind]["correct_minus_incorrect"] = _differences(filled["correct"], filled["incorrect"], bootstrap)
    return summary


@dataclass(frozen=True)
class ProblemSums:
    """Sums over the responses to each problem, of which means over any choice of problems are ratios.

    Attributes:
        problem_ids: `(P,)` int, ascending.
        labels: The labels of the B bins of each mean, by the mean's name.
        sums, counts: `(P, B)` float64 each, by the mean's name: sums of terms, and numbers of terms.
    """

    problem_ids: np.ndarray
    labels: dict[str, Sequence[str]]
    sums: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]


def problem_sums(
    source: Source, *, measure: str, measures: Sequence[Measure] = MEASURES, top_p: float | None = None
) -> dict[str, ProblemSums]:
    """The sums of a per-token table by problem, over all responses of each kind of trajectory.

    Args:
        source, measure, measures, top_p: As of `summarise`.

    Returns:
        The sums by kind of trajectory, of the problems that the kind has.

    Raises:
        ValueError: As of `summarise`.
    """
    tallies, numbers = _tallied(source, measure, top_p, measures, ("all",))
    order = np.argsort(list(numbers))
    result = {}
    for kind, groups in tallies.items():
        names = groups["all"].labels_of
        padded = {name: groups["all"].padded(name, len(numbers)) for name in names}
        known = order[np.any([counts[order].any(axis=1) for _, counts in padded.values()], axis=0)]
        result[kind] = ProblemSums(
            np.array(list(numbers))[known],
            dict(names),
            {name: sums[known] for name, (sums, _) in padded.items()},
            {name: counts[known] for name, (_, counts) in padded.items()},
        )
    return result


_OPTIONAL = {"trajectory", "js_top_p", *(name for name in TABLE_SCHEMA.names if name.startswith("mass_"))}

COMPARED = ("sparsity", "mean", "entropy_base", "entropy_rl", "overlap_high", "rank_high", "improbable_high")
"""The means that are compared between correct and incorrect responses."""


def _differences(first: _Tally, second: _Tally, bootstrap: ProblemBootstrap) -> dict[str, Any]:
    differences = {}
    for name in COMPARED:
        labels = first.labels(name)
        if labels is None or second.labels(name) is None:
            continue
        pairs = [tally.padded(name, bootstrap.weights.shape[1]) for tally in (first, second)]
        low, high = interval(bootstrap.ratios(*pairs[0]) - bootstrap.ratios(*pairs[1]))
        values = [means_of_sums(sums.sum(axis=0), counts.sum(axis=0)) for sums, counts in pairs]
        count = np.minimum(*(counts.sum(axis=0) for _, counts in pairs))
        differences[name] = _listed(labels, values[0] - values[1], low, high, count)
    return differences


def labelled_estimate(listed: dict[str, Any], label: str) -> dict[str, Any] | None:
    """The `value`, `low`, `high` and `n` that a mean or the quantiles of a group have at a label.

    Args:
        listed: an entry of a group's `means`, or its `quantiles`.
        label: one of its labels.

    Returns:
        The numbers; None for a mean of nothing.

    Raises:
        ValueError: if there is no such label.
    """
    index = listed["labels"].index(label)
    # a null instead of a whole list counts as a null for every label
    estimate = {name: None if listed[name] is None else listed[name][index] for name in ("value", "low", "high", "n")}
    return None if estimate["value"] is None else estimate


def group_estimate(group: Mapping[str, Any], name: str, label: str) -> dict[str, Any] | None:
    """The mean `name` of a group at a label, as `labelled_estimate` gives it; None also where the group lacks it."""
    listed = group["means"].get(name)
    return None if listed is None or label not in listed["labels"] else labelled_estimate(listed, label)
