"""The tokens whose distributions moved much, as sets that can be compared between tables along the same responses."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap, interval
from tokenshift.analysis.storage.parquet_files import read_parquet
from tokenshift.analysis.thresholds import HIGH
from tokenshift.analysis.token_table.columns import column
from tokenshift.analysis.token_table.measure import DEFAULT_MEASURE
from tokenshift.analysis.token_table.reader import Source, column_names

TOKEN_KEY = ("problem_id", "sample_id", "position")
"""The columns that say which token a row is."""


def high_tokens(source: Source, measure: str = DEFAULT_MEASURE) -> np.ndarray:
    """The tokens with JS > 0.1, `(H,)` records with the fields of `TOKEN_KEY`, each token once and in order.

    Args:
        source: per-token table of one kind of trajectory; its columns may be of any order.
        measure: the column that counts as the divergence, `js_top_p` or `js`.

    Raises:
        ValueError: if the table has no such column.
    """
    names = [*TOKEN_KEY, measure]
    if measure not in column_names(source):
        raise ValueError(
            f"measure={measure!r} is not a column of the table; it has {', '.join(column_names(source))}."
        )
    table = source.select(names) if isinstance(source, pa.Table) else read_parquet(Path(source), columns=names)
    high = column(table, measure) > HIGH
    keys = {name: column(table, name)[high] for name in TOKEN_KEY}
    keys = {name: values.astype(str) if values.dtype == object else values for name, values in keys.items()}
    tokens = np.empty(int(high.sum()), dtype=[(name, values.dtype) for name, values in keys.items()])
    for name, values in keys.items():
        tokens[name] = values
    return np.unique(tokens)


def jaccard(first: np.ndarray, second: np.ndarray) -> float | None:
    """Jaccard index of two sets of tokens, the size of their intersection over that of their union.

    Args:
        first, second: tokens, as `high_tokens` gives them.

    Returns:
        The index; None where both sets are empty.
    """
    both, either = _intersection_and_union(first, second)
    return len(both) / len(either) if len(either) else None


def jaccard_estimate(
    first: np.ndarray, second: np.ndarray, problem_ids: np.ndarray, bootstrap: ProblemBootstrap
) -> dict[str, float] | None:
    """Jaccard index of two sets of tokens as `value`, with the ends `low` and `high` of its interval by problem.

    Args:
        first, second: tokens, as `high_tokens` gives them.
        problem_ids: `(P,)`, the ids of all problems, in order.
        bootstrap: resamples of the P problems.

    Returns:
        The numbers; None where both sets are empty.
    """
    value = jaccard(first, second)
    if value is None:
        return None
    sizes = [
        np.bincount(np.searchsorted(problem_ids, tokens["problem_id"]), minlength=len(problem_ids)).astype(np.float64)
        for tokens in _intersection_and_union(first, second)
    ]
    low, high = interval(bootstrap.ratios(*(of_problem[:, None] for of_problem in sizes)))
    return {"value": value, "low": float(low[0]), "high": float(high[0])}


def _intersection_and_union(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.intersect1d(first, second, assume_unique=True), np.union1d(first, second)
