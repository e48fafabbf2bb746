"""How shifts grow over checkpoints, along trajectories that stay the same (arXiv 2603.22446, section 5)."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tokenshift.analysis.divergence.token_statistics import OVERLAPS
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.shift.claims import NOT_SEEN, OPEN, SEEN, Statement
from tokenshift.analysis.shift.high_tokens import high_tokens, jaccard_estimate
from tokenshift.analysis.shift.summary import labelled_estimate, summarise
from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap, interval
from tokenshift.analysis.token_table.columns import column
from tokenshift.analysis.token_table.reader import Source

PERCENTILES = ("0.5", "0.9", "0.95", "0.99")
"""The quantiles of JS that are followed over checkpoints, as a summary labels them."""


def step_of(name: str) -> int | None:
    """The update that a checkpoint's name tells, the last number in it; None without one.

    Args:
        name: a folder, or a hub name with its revision (`name@revision`).
    """
    numbers = re.findall(r"\d+", PurePath(name).name.rpartition("@")[2])
    return int(numbers[-1]) if numbers else None


def checkpoint_labels(names: Sequence[str]) -> list[str]:
    """The names without their folders, where that still tells them apart; else the names as they are."""
    tails = [PurePath(name).name for name in names]
    return tails if len(set(tails)) == len(tails) else list(names)


def evolution_rows(
    labels: Sequence[str],
    steps: Sequence[int | None],
    tables: Sequence[Source],
    accuracies: Sequence[dict[str, float] | None],
    *,
    resamples: int = 1000,
) -> list[dict[str, Any]]:
    """The numbers of each checkpoint, in order.

    Args:
        labels: names of the checkpoints.
        steps: their updates, None where unknown.
        tables: per-token tables of the base against each checkpoint, all along the same trajectories.
        accuracies: of each checkpoint's own responses, as `response_accuracy` gives them.
        resamples: number of resamples of the bootstrap.

    Returns:
        One row per checkpoint: `label`, `step`, `tokens`, `quantiles` of JS, `near_zero`, `high` (shares),
        `overlap_high` by k, `jaccard_final`, `jaccard_previous`, `accuracy`; intervals as `value`, `low`, `high`; None
        where there is nothing to take a mean of.
    """
    problem_ids = _problem_ids(tables[-1])
    bootstrap = ProblemBootstrap(len(problem_ids), resamples)
    final, previous = high_tokens(tables[-1]), None
    rows = []
    for label, step, table, accuracy in zip(labels, steps, tables, accuracies, strict=True):
        (groups,) = summarise(table, resamples=resamples).values()
        group = groups["all"]
        shares, overlaps = group["means"]["sparsity"], group["means"]["overlap_high"]
        high = high_tokens(table)
        rows.append(
            {
                "label": label,
                "step": step,
                "tokens": group["tokens"],
                "quantiles": {name: labelled_estimate(group["quantiles"], name) for name in PERCENTILES},
                "near_zero": labelled_estimate(shares, "< 0.001"),
                "high": labelled_estimate(shares, "> 0.1"),
                "overlap_high": {str(k): labelled_estimate(overlaps, str(k)) for k in OVERLAPS},
                "jaccard_final": jaccard_estimate(high, final, problem_ids, bootstrap),
                "jaccard_previous": (
                    None if previous is None else jaccard_estimate(high, previous, problem_ids, bootstrap)
                ),
                "accuracy": accuracy,
            }
        )
        previous = high
    return rows


def _problem_ids(source: Source) -> np.ndarray:
    names = ["problem_id"]
    table = source.select(names) if isinstance(source, pa.Table) else pq.read_table(source, columns=names)
    return np.unique(column(table, "problem_id"))


def evolution_statements(rows: Sequence[dict[str, Any]]) -> list[Statement]:
    """The publication's statements on evolution, held against the checkpoints' numbers."""
    if len(rows) < 3:
        return [Statement("Evolution", "over training", f"{len(rows)} checkpoints are too few", OPEN)]
    values = {name: [row["quantiles"][name]["value"] for row in rows] for name in PERCENTILES}
    rises = {name: bool(np.all(np.diff(series) >= 0)) for name, series in values.items()}
    gains = {name: series[-1] - series[0] for name, series in values.items()}
    falling = [f"p{100 * float(name):g}" for name, rising in rises.items() if not rising]
    clearly = any(
        after["high"] < before["low"]
        for name in PERCENTILES
        for before, after in pairwise(row["quantiles"][name] for row in rows)
    )
    statements = [
        Statement(
            "Percentiles of JS rise monotonically",
            "yes",
            "all do" if not falling else f"not {', '.join(falling)}, {'beyond' if clearly else 'within'} its interval",
            NOT_SEEN if clearly else OPEN if falling else SEEN,
        ),
        Statement(
            "the 95th and 99th fastest",
            "yes",
            ", ".join(f"p{100 * float(name):g} by {gain:.2g}" for name, gain in gains.items()) + " nats",
            SEEN if min(gains["0.95"], gains["0.99"]) > max(gains["0.5"], gains["0.9"]) else NOT_SEEN,
        ),
    ]
    overlaps = [row["jaccard_final"] for row in rows]
    text = "Overlap of the high-JS set with the final one rises slowly, then steeply, to 1"
    if any(overlap is None for overlap in overlaps):
        statements.append(Statement(text, "yes", "a checkpoint has no high-JS token", OPEN))
    else:
        series = [overlap["value"] for overlap in overlaps]
        late = np.diff(series)[len(series) // 2 :].mean() > np.diff(series)[: len(series) // 2].mean()
        shown = ", ".join(f"{value:.2f}" for value in series)
        statements.append(Statement(text, "yes", shown, SEEN if late and np.all(np.diff(series) >= 0) else NOT_SEEN))
    return statements


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
