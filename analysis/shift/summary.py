"""All numbers of a per-token table, with 95 % bootstrap intervals by problem, read in batches.

from tokenshift.analysis import summarise
summarise("outputs/pocket/analysis/table")["rl"]["all"]["means"]["sparsity"]
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tokenshift.analysis.shift.binned_means import MEASURES, BinnedTerms, Measure
from tokenshift.analysis.shift.token_identity import token_identity
from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap, interval
from tokenshift.analysis.thresholds import LOG_2
from tokenshift.analysis.token_table.columns import column
from tokenshift.analysis.token_table.reader import KEYS, Source, column_names, response_batches, verdicts
from tokenshift.analysis.token_table.schema import SCHEMA

GROUPS = ("all", "correct", "incorrect")

QUANTILES = (*np.arange(1, 20) / 20, 0.96, 0.97, 0.98, 0.99, 0.995, 0.999, 1.0)
"""Of the quantile curve."""

LOG_BINS = np.concatenate([[0.0], np.geomspace(1e-10, LOG_2 * (1 + 1e-6), 600)])
"""Bins of JS that the intervals of quantiles are taken from, 4 % wide; the quantiles themselves are exact."""

JOINT_JS = np.concatenate([[0.0], np.geomspace(1e-7, LOG_2 * (1 + 1e-6), 41)])
JOINT_ENTROPY = np.linspace(0, 12, 121)
"""Edges of the joint histogram, nats."""


class _Tally:
    """What one group of rows adds up to."""

    def __init__(self, measures: Sequence[Measure], measure: str) -> None:
        self._measures, self._measure = measures, measure
        self._labels: dict[str, Sequence[str]] = {}
        self._sums: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._js: list[np.ndarray] = []
        self._problems: list[np.ndarray] = []
        self._token_ids: list[np.ndarray] = []
        self._joint = {name: np.zeros((len(JOINT_JS) - 1, len(JOINT_ENTROPY) - 1), np.int64) for name in _JOINT}
        self.texts: dict[int, str] = {}
        self.responses = 0

    def add(self, table: pa.Table, problems: np.ndarray, known: int) -> None:
        """Add rows of whole responses; `problems` `(N,)` numbers theirs, of `known` seen so far."""
        if not table.num_rows:
            return
        for function in self._measures:
            for name, terms in function(table, self._measure).items():
                self._labels[name] = terms.labels
                self._sums[name] = _added(self._sums.get(name), terms, problems, known)
        js = column(table, self._measure)
        self._js.append(js)
        self._problems.append(problems)
        self._token_ids.append(column(table, "token_id"))
        for name in _JOINT:
            pair = (js, column(table, name).clip(0, JOINT_ENTROPY[-1]))
            self._joint[name] += np.histogram2d(*pair, (JOINT_JS, JOINT_ENTROPY))[0].astype(np.int64)
        ids, first = np.unique(self._token_ids[-1], return_index=True)
        self.texts |= dict(zip(ids.tolist(), table["token"].take(pa.array(first)).to_pylist(), strict=True))
        self.responses += int((column(table, "position") == 0).sum())

    def result(self, bootstrap: ProblemBootstrap) -> dict[str, Any]:
        """The group's numbers."""
        js, problems = np.concatenate(self._js), np.concatenate(self._problems)
        found: dict[str, Any] = {
            "tokens": len(js),
            "responses": self.responses,
            "problems": len(np.unique(problems)),
            "means": {},
        }
        for name in self._labels:
            sums, counts = self.padded(name, bootstrap)
            low, high = interval(bootstrap.ratios(sums, counts))
            with np.errstate(invalid="ignore"):
                value = sums.sum(axis=0) / counts.sum(axis=0)
            found["means"][name] = _listed(self._labels[name], value, low, high, counts.sum(axis=0))
        found["quantiles"] = _quantiles(js, problems, bootstrap)
        found["joint"] = {
            "js_edges": JOINT_JS.tolist(),
            "entropy_edges": JOINT_ENTROPY.tolist(),
            **{name: counts.tolist() for name, counts in self._joint.items()},
        }
        found["identity"] = token_identity(np.concatenate(self._token_ids), js, problems, self.texts, bootstrap)
        return found

    def padded(self, name: str, bootstrap: ProblemBootstrap) -> tuple[np.ndarray, np.ndarray]:
        """Sums and counts `(P, B)` over all problems."""
        rows = bootstrap.weights.shape[1]
        sums, counts = self._sums[name]
        return _grown(sums, rows), _grown(counts, rows)

    def labels(self, name: str) -> Sequence[str] | None:
        return self._labels.get(name)


_JOINT = ("entropy_base", "entropy_rl")


def _grown(array: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([array, np.zeros((rows - len(array), array.shape[1]))])


def _added(
    before: tuple[np.ndarray, np.ndarray] | None, terms: BinnedTerms, problems: np.ndarray, known: int
) -> tuple[np.ndarray, np.ndarray]:
    size = len(terms.labels)
    rows = problems if terms.rows is None else problems[terms.rows]
    inside = (terms.bins >= 0) & (terms.bins < size)
    flat = rows[inside] * size + terms.bins[inside]
    values = np.asarray(terms.values, dtype=np.float64)[inside]
    sums = np.bincount(flat, values, minlength=known * size).reshape(known, size)
    counts = np.bincount(flat, minlength=known * size).reshape(known, size).astype(np.float64)
    if before is None:
        return sums, counts
    return sums + _grown(before[0], known), counts + _grown(before[1], known)


def _listed(
    labels: Sequence[str], value: np.ndarray, low: np.ndarray, high: np.ndarray, count: np.ndarray
) -> dict[str, Any]:
    """JSON has no NaN: a mean of nothing is null."""
    numbers = {"value": value, "low": low, "high": high}
    plain = {name: [None if np.isnan(each) else float(each) for each in array] for name, array in numbers.items()}
    return {"labels": list(labels), **plain, "n": [int(each) for each in count]}


def _quantiles(js: np.ndarray, problems: np.ndarray, bootstrap: ProblemBootstrap) -> dict[str, Any]:
    rows, size = bootstrap.weights.shape[1], len(LOG_BINS) - 1
    places = np.clip(np.searchsorted(LOG_BINS, js, side="right") - 1, 0, size - 1)
    counts = np.bincount(problems * size + places, minlength=rows * size).reshape(rows, size)
    cumulative = np.cumsum(bootstrap.weights @ counts.astype(np.float32), axis=1)  # (R, bins)
    cumulative /= np.maximum(cumulative[:, -1:], 1)
    middles = np.minimum(np.sqrt(LOG_BINS[:-1] * LOG_BINS[1:]), LOG_2)
    sampled = np.stack([middles[(cumulative < q - 1e-6).sum(axis=1).clip(max=size - 1)] for q in QUANTILES], axis=1)
    low, high = interval(sampled)
    value = np.quantile(js, QUANTILES)
    labels = [f"{q:g}" for q in QUANTILES]
    return _listed(labels, value, np.minimum(low, value), np.maximum(high, value), np.full(len(QUANTILES), len(js)))


def summarise(
    source: Source,
    *,
    measure: str = "js",
    measures: Sequence[Measure] = MEASURES,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Every summary of a per-token table, by kind of trajectory and for all, correct and incorrect responses.

    Args:
        source: a table, a Parquet file or a folder of them; the rows of a response together, in order. Columns as
            `score_trajectories` writes them; without `trajectory` all rows are of one kind, `rl`.
        measure: the column that counts as the divergence: `js`, or `js_top_p` for truncated distributions.
        measures: functions of `tokenshift.analysis.shift.binned_means`.
        resamples: of the bootstrap.
        seed: its.

    Returns:
        `{kind: {group: {...}}}`, plain data for JSON. A group has `tokens`, `responses`, `problems`; `means`, by name
        `labels`, `value`, `low`, `high`, `n` (terms; None for a mean of none); `quantiles` of the divergence, in the
        same form; `joint`, counts by divergence and entropy; `identity`. Beside the groups
        `correct_minus_incorrect`, differences of means in the same form.

    Raises:
        ValueError: for a damaged file, a table without the needed columns, or no rows.
    """
    names = column_names(source)
    if measure not in names:
        raise ValueError(f"measure={measure!r} is not a column of the table; it has {', '.join(names)}.")
    wanted = [name for name in SCHEMA.names if name in names]
    if missing := [name for name in SCHEMA.names if name not in names and name not in _OPTIONAL]:
        raise ValueError(f"The table has no column {missing[0]!r}.")
    tallies: dict[str, dict[str, _Tally]] = {}
    numbers: dict[int, int] = {}  # of problems
    for batch in response_batches(source, [*wanted, *KEYS]):
        ids, place = np.unique(column(batch, "problem_id"), return_inverse=True)
        for problem in ids.tolist():
            numbers.setdefault(problem, len(numbers))
        problems = np.array([numbers[problem] for problem in ids.tolist()])[place]
        kinds = np.array(batch["trajectory"].to_pylist() if "trajectory" in names else ["rl"] * batch.num_rows)
        correct = verdicts(batch)
        for kind in np.unique(kinds):
            groups = tallies.setdefault(str(kind), {name: _Tally(measures, measure) for name in GROUPS})
            for group, tally in groups.items():
                mask = kinds == kind
                if group != "all":
                    mask &= correct == (group == "correct")
                tally.add(batch.filter(pa.array(mask)), problems[mask], len(numbers))
    if not numbers:
        raise ValueError("The table is empty: there is nothing to summarise.")
    bootstrap = ProblemBootstrap(len(numbers), resamples, seed)
    # a problem gets the same weights in whichever order the rows come
    bootstrap.weights = bootstrap.weights[:, np.argsort(np.argsort(list(numbers)))]
    found: dict[str, Any] = {}
    for kind, groups in tallies.items():
        filled = {name: tally for name, tally in groups.items() if tally.responses}
        found[kind] = {name: tally.result(bootstrap) for name, tally in filled.items()}
        if {"correct", "incorrect"} <= filled.keys():
            found[kind]["correct_minus_incorrect"] = _differences(filled["correct"], filled["incorrect"], bootstrap)
    return found


_OPTIONAL = {"trajectory", "js_top_p", *(name for name in SCHEMA.names if name.startswith("mass_"))}
COMPARED = ("sparsity", "mean", "entropy_base", "entropy_rl", "overlap_high", "rank_high", "improbable_high")


def _differences(first: _Tally, second: _Tally, bootstrap: ProblemBootstrap) -> dict[str, Any]:
    found = {}
    for name in COMPARED:
        labels = first.labels(name)
        if labels is None or second.labels(name) is None:
            continue
        pairs = [tally.padded(name, bootstrap) for tally in (first, second)]
        low, high = interval(bootstrap.ratios(*pairs[0]) - bootstrap.ratios(*pairs[1]))
        with np.errstate(invalid="ignore"):
            values = [sums.sum(axis=0) / counts.sum(axis=0) for sums, counts in pairs]
        count = np.minimum(*(counts.sum(axis=0) for _, counts in pairs))
        found[name] = _listed(labels, values[0] - values[1], low, high, count)
    return found


def entry(listed: dict[str, Any], label: str) -> dict[str, Any] | None:
    """One label's `value`, `low`, `high` and `n` of a group's mean or quantiles; None for a mean of nothing."""
    place = listed["labels"].index(label)
    found = {name: listed[name][place] for name in ("value", "low", "high", "n")}
    return None if found["value"] is None else found
