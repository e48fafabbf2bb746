"""Trainings and analyses on two processes are those on one: a diagonal of the table that `make distributed` runs."""

import json
from pathlib import Path

import pytest
from distributed.analyses import ANALYSIS_TOLERANCE, run_analyses
from distributed.cells import DIAGONAL, RESUMED
from distributed.comparison import differences, largest_by_column
from distributed.table import COLUMNS, ONE, TOLERANCES, Cell, run_table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Cell]:
    cells = run_table(DIAGONAL, RESUMED, tmp_path_factory.mktemp("engines"))
    return {(cell.variant, cell.engine): cell for cell in cells}


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.timeout(2400)  # the first one waits for all runs
@pytest.mark.parametrize("cell", DIAGONAL, ids=" on ".join)
def test_a_training_is_the_same_on_one_process(table: dict[tuple[str, str], Cell], cell: tuple[str, str]) -> None:
    outcome = table[cell]
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert outcome.fault is None
    assert outcome.excesses == []
    assert outcome.figures.keys() == {*COLUMNS} - ({"resume"} if cell not in RESUMED else set())


@pytest.mark.slow
@pytest.mark.distributed
def test_analyses_are_the_same_on_one_process(tmp_path: Path) -> None:
    """Shifts, evaluations and cross-sampling have tests of their own."""
    for name, figure, file in run_analyses(tmp_path, ["evolution", "robustness"]):
        assert figure <= ANALYSIS_TOLERANCE, (name, file)
        assert list((tmp_path / f"{name}-ddp").rglob("part-00001-of-00002.parquet")), (
            "the second process scored nothing"
        )


def _write_log(folder: Path, **changes: float) -> Path:
    values = {"loss": 0.5, "grad_norm": 0.25, "divergence/p95": 1e-6, "shift/top_p/position_03": 0.01, **changes}
    rows = [{"step": 1, **values, "step_time": 3.0 + len(changes)}, {"step": 2, "loss": 0.1, "text": "no number"}]
    folder.mkdir()
    (folder / "log_history.json").write_text(json.dumps(rows))
    return folder


def test_every_logged_number_is_compared(tmp_path: Path) -> None:
    one = _write_log(tmp_path / "one")
    assert {each.relative for each in differences(one, _write_log(tmp_path / "same"))} == {0.0}
    changed = _write_log(tmp_path / "changed", grad_norm=0.2505, **{"divergence/p95": 1.1e-6})
    largest = largest_by_column(differences(one, changed))
    assert {column: round(each.relative, 6) for column, each in largest.items()} == {
        "loss": 0.0,
        "metrics": 0.002,  # 0.0005 / 0.25
        "of few": 0.0001,  # 1e-7 / 0.001
    }
    assert str(largest["metrics"]) == "grad_norm at update 1: 0.25 and 0.2505"
    for other in ({"loss": float("nan")}, {"reward": 1.0}):  # a number that is none, and one more of them
        run = _write_log(tmp_path / f"other_{next(iter(other))}", **other)
        assert max(each.relative for each in differences(one, run)) == float("inf")


def test_a_figure_beyond_its_tolerance_is_told() -> None:
    right = Cell("k3", "ddp", figures=dict(TOLERANCES))
    wrong = Cell("k3", "ddp", figures={"metrics": 1.0, "saved": float("nan")}, largest={"metrics": "entropy"})
    assert right.is_right
    assert [excess.split(" > ")[0] for excess in wrong.excesses] == ["metrics 1.0e+00", "saved nan"]
    assert "entropy" in wrong.excesses[0]
    assert not wrong.is_right
    assert not Cell("k3", ONE, fault="exit status 1").is_right
    assert all(len(cell.row()) <= 80 for cell in (right, wrong, Cell("checkpointing", "one", fault="x" * 99)))
