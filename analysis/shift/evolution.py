"""How shifts grow over checkpoints, along trajectories that stay the same (arXiv 2603.22446, section 5)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tokenshift.analysis.divergence.token_statistics import OVERLAPS
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.shift.claims import NOT_SEEN, OPEN, SEEN, Statement
from tokenshift.analysis.shift.summary import entry, summarise
from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap, interval
from tokenshift.analysis.thresholds import HIGH
from tokenshift.analysis.token_table.columns import column
from tokenshift.analysis.token_table.reader import Source

PERCENTILES = ("0.5", "0.9", "0.95", "0.99")
KEYS = ("problem_id", "sample_id", "position")


def high_mask(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens have JS > 0.1, bool `(N,)`, and their problems `(N,)`, in the order of the tokens' keys."""
    columns = [*KEYS, "js"]
    table = source.select(columns) if isinstance(source, pa.Table) else pq.read_table(source, columns=columns)
    order = np.lexsort([column(table, name) for name in reversed(KEYS)])
    return column(table, "js")[order] > HIGH, column(table, "problem_id")[order]


def set_overlap(
    first: np.ndarray, second: np.ndarray, problems: np.ndarray, bootstrap: ProblemBootstrap
) -> dict[str, float] | None:
    """Jaccard overlap of two sets of tokens, with its interval; None where both are empty.

    Args:
        first, second: bool `(N,)`, of the same tokens.
        problems: `(N,)` int, 0 to P - 1.
        bootstrap: resamples of the P problems.
    """
    size = bootstrap.weights.shape[1]
    both = np.bincount(problems, first & second, minlength=size)
    either = np.bincount(problems, first | second, minlength=size)
    if not either.any():
        return None
    low, high = interval(bootstrap.ratios(both[:, None], either[:, None]))
    return {"value": float(both.sum() / either.sum()), "low": float(low[0]), "high": float(high[0])}


def evolution_rows(
    labels: Sequence[str],
    steps: Sequence[int | None],
    tables: Sequence[Source],
    own: Sequence[dict[str, float] | None],
    *,
    resamples: int = 1000,
) -> list[dict[str, Any]]:
    """The numbers of each checkpoint, in order.

    Args:
        labels, steps: of the checkpoints; steps are updates, None where unknown.
        tables: base against each checkpoint, all along the same trajectories.
        own: accuracy of each checkpoint's own responses: `value`, `low`, `high`, `n`.
        resamples: of the bootstrap.

    Returns:
        A row a checkpoint: `label`, `step`, `tokens`, `quantiles` of JS, `near_zero`, `high` (shares), `overlap_high`
        by k, `jaccard_final`, `jaccard_previous`, `accuracy`; intervals as `value`, `low`, `high`; None where there
        is nothing to take a mean of.
    """
    masks = [high_mask(table) for table in tables]
    ids, problems = np.unique(masks[-1][1], return_inverse=True)
    bootstrap = ProblemBootstrap(len(ids), resamples)
    rows = []
    for place, (label, step, table) in enumerate(zip(labels, steps, tables, strict=True)):
        (groups,) = summarise(table, resamples=resamples).values()
        group = groups["all"]
        previous = masks[place - 1][0] if place else None
        rows.append(
            {
                "label": label,
                "step": step,
                "tokens": group["tokens"],
                "quantiles": {name: entry(group["quantiles"], name) for name in PERCENTILES},
                "near_zero": entry(group["means"]["sparsity"], "< 0.001"),
                "high": entry(group["means"]["sparsity"], "> 0.1"),
                "overlap_high": {str(k): entry(group["means"]["overlap_high"], str(k)) for k in OVERLAPS},
                "jaccard_final": set_overlap(masks[place][0], masks[-1][0], problems, bootstrap),
                "jaccard_previous": (
                    None if previous is None else set_overlap(masks[place][0], previous, problems, bootstrap)
                ),
                "accuracy": own[place],
            }
        )
    return rows


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
    found = [
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
    if any(each is None for each in overlaps):
        found.append(Statement(text, "yes", "a checkpoint has no high-JS token", OPEN))
    else:
        series = [each["value"] for each in overlaps]
        late = np.diff(series)[len(series) // 2 :].mean() > np.diff(series)[: len(series) // 2].mean()
        shown = ", ".join(f"{value:.2f}" for value in series)
        found.append(Statement(text, "yes", shown, SEEN if late and np.all(np.diff(series) >= 0) else NOT_SEEN))
    return found


def accuracy(trajectories: Sequence[Trajectory], resamples: int = 1000, seed: int = 0) -> dict[str, float] | None:
    """Share of correct responses as `value`, `low`, `high`, and their number `n`; None where none was judged."""
    judged = [each for each in trajectories if each.correct is not None]
    if not judged:
        return None
    ids, problems = np.unique([each.problem_id for each in judged], return_inverse=True)
    correct = np.bincount(problems, [bool(each.correct) for each in judged])
    counts = np.bincount(problems)
    low, high = interval(ProblemBootstrap(len(ids), resamples, seed).ratios(correct[:, None], counts[:, None]))
    value = float(correct.sum() / counts.sum())
    return {"value": value, "low": float(low[0]), "high": float(high[0]), "n": len(judged)}
