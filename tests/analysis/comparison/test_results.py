"""The results of a trained model, from the files that its recipes leave."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tokenshift.analysis.comparison.results import SHIFT, final_shift, mean_accuracy, problem_accuracies, read_cell


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    """A cell's folder with an evaluation on two sets, two probes, a cross-sampling and a log."""
    (tmp_path / "responses").mkdir()
    for name, problems, correct in (("a", [1, 0, 1], [True, False, None]), ("b", [0, 0, 1], [True, False, None])):
        table = pa.table({"set": [name] * 3, "problem_id": problems, "correct": pa.array(correct, pa.bool_())})
        pq.write_table(table, tmp_path / "responses" / f"{name}.parquet")
    (tmp_path / "shift").mkdir()
    for step, js in ((0, 0.0), (8, 0.5)):
        rows = {"trajectory": ["own", "own", "fixed"], "js": [js, js, js / 2], "js_top_p": [0.0, js, 0.0]}
        pq.write_table(pa.table(rows), tmp_path / "shift" / f"step_{step:06d}.parquet")
    probes = [{"step": 0, "shift/own/accuracy": 0.25}, {"step": 4}, {"step": 8, "shift/own/accuracy": 0.5}]
    (tmp_path / "shift" / "metrics.json").write_text(json.dumps(probes))
    (tmp_path / "log.json").write_text(json.dumps([{"step": 1, "reward": 0.5}, {"step": 2}]))
    swept = {"criterion": "my.margin", "recovery": {"value": 0.75}, "intervened": {"value": 0.1}, "effective": None}
    ends = [{"criterion": name, "recovery": {"value": 9.0}} for name in ("none", "all")]
    cross = {"cells": [ends[0], {**swept, "accuracy": {"value": 0.5}}, ends[1]]}
    (tmp_path / "cross.json").write_text(json.dumps(cross))
    return tmp_path


def test_what_a_cell_leaves(cell: Path) -> None:
    result = read_cell("dapo", 3, cell, responses=cell / "responses", cross=cell / "cross.json", log=cell / "log.json")
    assert (result.variant, result.seed) == ("dapo", 3)
    assert result.correct["a"].tolist() == [0.0, 1.0]  # the response without a verdict does not count
    assert result.correct["b"][0] == 0.5
    assert np.isnan(result.correct["b"][1])
    assert mean_accuracy(result.correct) == 0.5
    assert result.shift["own"]["js_mean"] == pytest.approx(0.5)
    assert result.shift["fixed"]["js_mean"] == pytest.approx(0.25)
    assert result.shift["own"]["js_top_p_mean"] == pytest.approx(0.25)
    assert result.shift["own"]["js_top_p_frac_near_zero"] == 0.5
    assert result.shift["fixed"]["js_top_p_frac_near_zero"] == 1.0
    assert result.recovery == {"value": 0.75, "intervened": 0.1, "effective": None, "accuracy": 0.5}
    assert (result.rewards, result.probed) == ([(1, 0.5)], [(0, 0.25), (8, 0.5)])


def test_older_probes_have_the_whole_divergence_alone(cell: Path) -> None:
    pq.write_table(pa.table({"trajectory": ["own"], "js": [0.5]}), cell / "shift" / "step_000009.parquet")
    shift = final_shift(cell / "shift")
    assert set(shift["own"]) == {f"js_{name}" for name in SHIFT}


def test_a_cell_with_an_evaluation_alone(cell: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    result = read_cell("dapo", 0, nowhere, responses=cell / "responses", cross=nowhere / "c", log=nowhere / "l")
    assert (result.shift, result.recovery, result.rewards, result.probed) == ({}, None, [], [])


def test_missing_and_damaged_responses_are_named(cell: Path) -> None:
    with pytest.raises(ValueError, match=r"shift/nothing has no responses"):
        problem_accuracies(cell / "shift" / "nothing")
    (cell / "responses" / "b.parquet").write_bytes(b"PAR1 half")
    with pytest.raises(ValueError, match=r"b.parquet is damaged; delete its folder"):
        problem_accuracies(cell / "responses")
