"""How shifts grow over checkpoints, along trajectories that stay the same (arXiv 2603.22446, section 4)."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tokenshift.analysis.divergence.token_statistics import OVERLAPS
from tokenshift.analysis.report.statements import NOT_SEEN, OPEN, SEEN, Statement
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.shift.claims import beside
from tokenshift.analysis.shift.exact_zeros import EXACT_ZERO
from tokenshift.analysis.shift.high_tokens import high_tokens, jaccard_estimate
from tokenshift.analysis.shift.summary import group_estimate, labelled_estimate, summarise
from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap, interval
from tokenshift.analysis.storage.parquet_files import read_parquet
from tokenshift.analysis.thresholds import HIGH, NEAR_ZERO
from tokenshift.analysis.token_table.columns import column
from tokenshift.analysis.token_table.measure import DEFAULT_MEASURE, second_measure
from tokenshift.analysis.token_table.reader import Source, column_names

PERCENTILES = ("0.5", "0.9", "0.95", "0.99")
"""The quantiles of JS that are followed over checkpoints, as a summary labels them."""

FIRST_OVERLAP = 0.5
"""The first checkpoint's overlap with the last one, from which on it cannot rise much. The value is this project's."""


def evolution_rows(
    labels: Sequence[str],
    steps: Sequence[int | None],
    tables: Sequence[Source],
    accuracies: Sequence[dict[str, float] | None],
    *,
    measure: str = DEFAULT_MEASURE,
    resamples: int = 1000,
) -> list[dict[str, Any]]:
    """The numbers of each checkpoint, in order.

    Args:
        labels: names of the checkpoints.
        steps: their updates, None where unknown.
        tables: per-token tables of the base against each checkpoint, all along the same trajectories.
        accuracies: of each checkpoint's own responses, as `response_accuracy` gives them.
        measure: the column that counts as the divergence, `js_top_p` or `js`.
        resamples: number of resamples of the bootstrap.

    Returns:
        One row per checkpoint: `label`, `step`, `tokens`, `measure`, `top_p`, `quantiles` of JS, `near_zero`, `high`
        (shares), `overlap_high` by k, `jaccard_final`, `jaccard_previous`, `accuracy`; `exact_zero` (share),
        `js_at_exact_zero` (mean full JS there, nats) and `js_max_at_exact_zero`; intervals as `value`, `low`, `high`;
        None where there is nothing to take a mean of. `second` has what depends on the measure again, by the other
        one; None where the tables lack it.
    """
    problem_ids = _problem_ids(tables[-1])
    bootstrap = ProblemBootstrap(len(problem_ids), resamples)
    rows: list[dict[str, Any]] = [
        {"label": label, "step": step, "accuracy": accuracy}
        for label, step, accuracy in zip(labels, steps, accuracies, strict=True)
    ]
    by_measure = _measured(tables, measure, problem_ids, bootstrap, resamples)
    second = second_measure(measure, column_names(tables[-1]))
    others = None if second is None else _measured(tables, second, problem_ids, bootstrap, resamples)
    for index, row in enumerate(rows):
        row |= by_measure[index]
        row["second"] = None if others is None else others[index]
    return rows


def _measured(
    tables: Sequence[Source], measure: str, problem_ids: np.ndarray, bootstrap: ProblemBootstrap, resamples: int
) -> list[dict[str, Any]]:
    """The numbers of each checkpoint that are taken with a measure."""
    final, previous = high_tokens(tables[-1], measure), None
    rows = []
    for table in tables:
        (groups,) = summarise(table, measure=measure, resamples=resamples).values()
        group = groups["all"]
        shares, overlaps = group["means"]["sparsity"], group["means"]["overlap_high"]
        high = high_tokens(table, measure)
        rows.append(
            {
                "tokens": group["tokens"],
                "measure": measure,
                "top_p": group["top_p"],
                "quantiles": {name: labelled_estimate(group["quantiles"], name) for name in PERCENTILES},
                "near_zero": labelled_estimate(shares, f"< {NEAR_ZERO:g}"),
                "high": labelled_estimate(shares, f"> {HIGH:g}"),
                "exact_zero": group_estimate(group, "exact_zero", EXACT_ZERO),
                "js_at_exact_zero": group_estimate(group, "at_exact_zero", "js"),
                "js_max_at_exact_zero": group["js_max_at_exact_zero"],
                "overlap_high": {str(k): labelled_estimate(overlaps, str(k)) for k in OVERLAPS},
                "jaccard_final": jaccard_estimate(high, final, problem_ids, bootstrap),
                "jaccard_previous": (
                    None if previous is None else jaccard_estimate(high, previous, problem_ids, bootstrap)
                ),
            }
        )
        previous = high
    return rows


def _problem_ids(source: Source) -> np.ndarray:
    names = ["problem_id"]
    table = source.select(names) if isinstance(source, pa.Table) else read_parquet(Path(source), columns=names)
    return np.unique(column(table, "problem_id"))


def evolution_statements(rows: Sequence[dict[str, Any]]) -> list[Statement]:
    """The publication's statements on evolution, held against the checkpoints' numbers, by both measures."""
    judged = _judged(rows)
    others = [row.get("second") for row in rows]
    return judged if None in others or not rows else beside(judged, _judged(others))


def _judged(rows: Sequence[Any]) -> list[Statement]:
    if len(rows) < 3:
        return [Statement("Evolution", "over training", f"{len(rows)} checkpoints are too few", OPEN)]
    gains = {name: rows[-1]["quantiles"][name]["value"] - rows[0]["quantiles"][name]["value"] for name in PERCENTILES}
    return [
        _monotonic(rows),
        Statement(
            "the 95th and 99th fastest",
            "yes",
            ", ".join(f"{_percentile(name)} by {gain:.2g}" for name, gain in gains.items()) + " nats",
            SEEN if min(gains["0.95"], gains["0.99"]) > max(gains["0.5"], gains["0.9"], 0) else NOT_SEEN,
        ),
        _growing_overlap(rows),
    ]


def _percentile(name: str) -> str:
    return f"p{100 * float(name):g}"


def _monotonic(rows: Sequence[Any]) -> Statement:
    """The percentiles that rise, those that stay where they are, and those that fall between two checkpoints."""
    series = {name: [row["quantiles"][name] for row in rows] for name in PERCENTILES}
    steps = {name: np.diff([estimate["value"] for estimate in of_name]) for name, of_name in series.items()}
    falling = [name for name, differences in steps.items() if (differences < 0).any()]
    still = [name for name, differences in steps.items() if not differences.any()]
    rising = [name for name in PERCENTILES if name not in (*falling, *still)]
    clearly = any(after["high"] < before["low"] for of_name in series.values() for before, after in pairwise(of_name))
    parts = {"rising": rising, "unchanged": still, "falling": falling}
    words = "; ".join(f"{word}: {', '.join(map(_percentile, names))}" for word, names in parts.items() if names)
    if falling:
        words += f", {'beyond' if clearly else 'within'} the interval"
    verdict = NOT_SEEN if clearly or not rising else OPEN if falling else SEEN
    return Statement("Percentiles of JS rise monotonically", "yes", words, verdict)


def _growing_overlap(rows: Sequence[Any]) -> Statement:
    overlaps = [row["jaccard_final"] for row in rows]
    text = (
        f"Overlap of the high-JS set with the final one rises slowly from below {FIRST_OVERLAP:g}, then steeply, to 1"
    )
    if any(overlap is None for overlap in overlaps):
        return Statement(text, "yes", "a checkpoint has no high-JS token", OPEN)
    values = [overlap["value"] for overlap in overlaps]
    steps = np.diff(values)
    late = steps[len(values) // 2 :].mean() > steps[: len(values) // 2].mean()
    shown = ", ".join(f"{value:.2f}" for value in values)
    seen = late and np.all(steps >= 0) and values[0] < FIRST_OVERLAP
    return Statement(text, "yes", shown, SEEN if seen else NOT_SEEN)


def response_accuracy(
    trajectories: Sequence[Trajectory], resamples: int = 1000, seed: int = 0
) -> dict[str, float] | None:
    """Share of correct responses as `value`, `low`, `high`, and their number `n`; None where none was judged.

    Args:
        trajectories: responses; those without a verdict are left out.
        resamples: number of resamples of the bootstrap by problem.
        seed: seed of the bootstrap.
    """
    judged = [trajectory for trajectory in trajectories if trajectory.correct is not None]
    if not judged:
        return None
    ids, problems = np.unique([trajectory.problem_id for trajectory in judged], return_inverse=True)
    correct = np.bincount(problems, [bool(trajectory.correct) for trajectory in judged])
    counts = np.bincount(problems)
    low, high = interval(ProblemBootstrap(len(ids), resamples, seed).ratios(correct[:, None], counts[:, None]))
    value = float(correct.sum() / counts.sum())
    return {"value": value, "low": float(low[0]), "high": float(high[0]), "n": len(judged)}
