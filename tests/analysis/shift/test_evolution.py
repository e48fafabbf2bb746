"""Steps and labels of checkpoints, and rows in which nothing is high or judged."""

import pytest
from helpers.random_table import random_rows

from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.shift.checkpoint_steps import checkpoint_labels, step_of
from tokenshift.analysis.shift.evolution import evolution_rows, evolution_statements, response_accuracy


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("run7/checkpoint-120", 120),
        ("org/model-7b@step30", 30),
        ("org/model-7b@main", None),
        ("run/final", None),
        ("run/3-of-10", 10),
    ],
)
def test_steps(name: str, step: int | None) -> None:
    assert step_of(name) == step


def test_labels_tell_checkpoints_apart() -> None:
    assert checkpoint_labels(["a/checkpoint-1", "a/checkpoint-2"]) == ["checkpoint-1", "checkpoint-2"]
    assert checkpoint_labels(["a/checkpoint-1", "b/checkpoint-1"]) == ["a/checkpoint-1", "b/checkpoint-1"]


def test_rows_without_a_high_token() -> None:
    tables = [random_rows(0, [20, 30], largest=largest, judged="none") for largest in (0.01, 0.05, 0.09)]
    rows = evolution_rows(["a", "b", "c"], [None] * 3, tables, [None] * 3, measure="js", resamples=10)
    assert [row["tokens"] for row in rows] == [50] * 3
    assert all(row["jaccard_final"] is None and row["jaccard_previous"] is None for row in rows)
    assert all(row["overlap_high"]["2"] is None and row["accuracy"] is None for row in rows)
    assert all(row["high"]["value"] == 0 for row in rows)
    assert "no high-JS token" in evolution_statements(rows)[-1].measured


def test_first_checkpoint_has_none_before_it() -> None:
    tables = [random_rows(seed, [20, 30]) for seed in (0, 1)]
    rows = evolution_rows(["a", "b"], [1, 2], tables, [None, {"value": 1.0}], resamples=10)
    assert rows[0]["jaccard_previous"] is None
    assert rows[1]["jaccard_final"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert rows[0]["jaccard_final"] == rows[1]["jaccard_previous"]
    assert rows[1]["accuracy"] == {"value": 1.0}


def test_accuracy_of_a_single_response_and_of_unjudged_ones() -> None:
    response = Trajectory(4, 0, [1], [2], True)
    assert response_accuracy([response, Trajectory(5, 0, [1], [2], None)], 20) == {
        "value": 1.0,
        "low": 1.0,
        "high": 1.0,
        "n": 1,
    }
    assert response_accuracy([], 20) is None
