"""Sets of high tokens and their Jaccard index against Python's sets, whatever the order of the rows."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.random_table import random_rows

from tokenshift.analysis.shift.high_tokens import high_tokens, jaccard, jaccard_estimate
from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap


def as_set(table: pa.Table, measure: str = "js_top_p") -> set[tuple[int, int, int]]:
    limit = np.float32(0.1)
    return {
        (row["problem_id"], row["sample_id"], row["position"])
        for row in table.to_pylist()
        if np.float32(row[measure]) > limit
    }


def test_a_measure_is_a_column() -> None:
    table = random_rows(0, [40])
    assert high_tokens(table, "js").tolist() == sorted(as_set(table, "js")) != high_tokens(table).tolist()
    with pytest.raises(ValueError, match="measure='js_top_p' is not a column of the table; it has"):
        high_tokens(table.drop_columns("js_top_p"))


@pytest.mark.parametrize("lengths", [[1], [5, 60, 2, 33]])
def test_against_sets(lengths: list[int], tmp_path: Path) -> None:
    tables = [random_rows(seed, lengths) for seed in (0, 1, 2)]
    pq.write_table(tables[0], tmp_path / "table.parquet")
    first, *others = [high_tokens(tables[0]), high_tokens(tables[1]), high_tokens(tables[2])]
    assert first.tolist() == sorted(as_set(tables[0]))
    assert high_tokens(tmp_path / "table.parquet").tolist() == first.tolist()
    for table, other in zip(tables[1:], others, strict=True):
        union = as_set(tables[0]) | as_set(table)
        expected = len(as_set(tables[0]) & as_set(table)) / len(union) if union else None
        assert jaccard(first, other) == expected
    shuffled = tables[1].take(pa.array(np.random.default_rng(0).permutation(tables[1].num_rows)))
    assert jaccard(others[0], high_tokens(shuffled)) in (1.0, None)


def test_empty_sets() -> None:
    none = high_tokens(random_rows(0, [20], largest=0.05), "js")
    some = high_tokens(random_rows(1, [20]), "js")
    assert len(none) == 0 < len(some)
    assert jaccard(none, none) is None
    assert jaccard(none, some) == jaccard(some, none) == 0
    assert jaccard(some, some) == 1


def test_problems_with_names() -> None:
    table = random_rows(3, [9, 9, 9])
    names = pa.array([f"problem {number}" for number in table["problem_id"].to_pylist()])
    named = table.set_column(0, "problem_id", names)
    assert [(f"problem {number}", sample, position) for number, sample, position in high_tokens(table).tolist()] == (
        high_tokens(named).tolist()
    )


def test_intervals_are_over_problems() -> None:
    first, second = random_rows(0, [40] * 12), random_rows(1, [40] * 12)
    bootstrap = ProblemBootstrap(6, 500)
    estimate = jaccard_estimate(high_tokens(first), high_tokens(second), np.arange(6), bootstrap)
    assert estimate is not None
    both, either = as_set(first) & as_set(second), as_set(first) | as_set(second)
    assert estimate["value"] == len(both) / len(either)
    counts = np.array([[sum(key[0] == problem for key in keys) for problem in range(6)] for keys in (both, either)])
    resampled = (bootstrap.weights @ counts[0]) / (bootstrap.weights @ counts[1])
    assert (estimate["low"], estimate["high"]) == pytest.approx(tuple(np.quantile(resampled, [0.025, 0.975])))
