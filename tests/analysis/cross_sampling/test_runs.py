"""Statements on cross-sampling over several trainings: which policies they are about, and when they are seen."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers.made_sweep import LENGTH, PROBLEMS, made_sweep

from tokenshift.analysis.cross_sampling.runs import cross_runs_summary


def by_key(tables: list[pa.Table]) -> dict[str, dict[str, Any]]:
    return {statement["key"]: statement for statement in cross_runs_summary(tables)["statements"]}


@pytest.mark.parametrize(
    ("chosen", "control", "restores", "targeted"),
    [
        ((20, 20, 20), (8, 9, 10), "seen", "seen"),  # all of RL's gain, and more than the control
        ((8, 9, 10), (20, 20, 20), "not seen", "not seen"),
        ((18, 19, 20), (17, 19, 21), "open", "open"),
        ((20, 20), (8, 9), "open: 2 runs are too few", "open: 2 runs are too few"),
        ((20,), (8,), "open", "open"),  # one run has no interval for others
    ],
)
def test_verdicts(chosen: tuple[int, ...], control: tuple[int, ...], restores: str, targeted: str) -> None:
    found = by_key([made_sweep(*numbers) for numbers in zip(chosen, control, strict=True)])
    assert found["restores"]["verdict"] == restores
    assert found["targeted"]["verdict"] == targeted


def test_numbers_are_means_over_runs() -> None:
    summary = cross_runs_summary([made_sweep(20, 8), made_sweep(18, 9), made_sweep(16, 10)])
    assert (summary["runs"], summary["problems"]) == (3, PROBLEMS)
    assert summary["levels"]["base"]["value"] == pytest.approx(4 / PROBLEMS)
    assert summary["levels"]["gain"]["value"] == pytest.approx(16 / PROBLEMS)
    policy = next(one for one in summary["policies"] if one["criterion"] == "js_top_p")
    assert policy["accuracy"]["runs"] == pytest.approx([20 / PROBLEMS, 18 / PROBLEMS, 16 / PROBLEMS])
    assert policy["accuracy"]["value"] == pytest.approx(18 / PROBLEMS)
    assert policy["effective"]["value"] == pytest.approx(2 / LENGTH)
    assert policy["covered"]["value"] == pytest.approx(0.5)
    restores = summary["statements"][0]
    assert restores["estimate"]["value"] == pytest.approx((18 - 4 - 0.9 * 16) / PROBLEMS)
    assert "from 16.7 to 75.0 %" in restores["measured"]
    assert "10.0 % [10.0, 10.0] effective, 50.0 % [50.0, 50.0] of all disagreements" in restores["measured"]
    assert summary["statements"][1]["estimate"]["value"] == pytest.approx(9 / PROBLEMS)


def test_a_control_that_replaces_far_less_is_no_control() -> None:
    found = by_key([made_sweep(20, 8, of_control=1)] * 3)
    assert found["targeted"]["verdict"] == "open"
    assert found["targeted"]["measured"] == "no budget that both criteria meet nearly alike in every run"
    assert found["restores"]["verdict"] == "seen"


def test_budgets_above_a_tenth_of_the_tokens_are_not_few() -> None:
    def raised(table: pa.Table) -> pa.Table:
        budgets = [None if budget is None else 0.2 for budget in table["budget"].to_pylist()]
        return table.set_column(table.schema.get_field_index("budget"), "budget", pa.array(budgets, pa.float64()))

    found = by_key([raised(made_sweep(20, 8)) for _ in range(3)])
    assert found["restores"]["verdict"] == "open"
    assert found["restores"]["measured"] == "no such policy in every run"


def test_a_budget_that_one_run_lacks_is_left_out() -> None:
    whole, lacking = made_sweep(20, 8), made_sweep(20, 8)
    lacking = lacking.filter(pa.compute.not_equal(lacking["criterion"], "js_top_p"))
    summary = cross_runs_summary([whole, whole, lacking])
    assert {policy["criterion"] for policy in summary["policies"]} == {"none", "all", "random_disagreement"}


@pytest.mark.parametrize("other", [lambda: made_sweep(20, 8, problems=20), lambda: made_sweep(20, 8, first=1)])
def test_runs_on_other_problems_are_refused(other: Callable[[], pa.Table]) -> None:
    with pytest.raises(ValueError, match="Run 2 has other problems than run 1"):
        cross_runs_summary([made_sweep(20, 8), other()])


def test_four_problems_say_nothing() -> None:
    found = by_key([made_sweep(4, 1, problems=4)] * 3)
    assert {statement["verdict"] for statement in found.values()} == {"open"}
    assert found["restores"]["measured"].endswith("of 4 problems")


def test_intervals_of_a_null_hold_zero() -> None:
    """A criterion no better than its control is said to be seen in at most about 1 in 40 trials."""
    rng, seen, trials = np.random.default_rng(0), 0, 30
    for _ in range(trials):
        seen += (
            by_key([made_sweep(*rng.binomial(PROBLEMS, 0.5, 2)) for _ in range(3)])["targeted"]["verdict"] == "seen"
        )
    assert seen <= 3
