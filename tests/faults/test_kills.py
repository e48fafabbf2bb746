"""Recipes that are killed or stopped at a few moments, and started again; `make kills` strikes at many more."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from faults.outcomes import torn_files, unlike

from tokenshift.analysis.storage.parquet_files import write_parquet

PROGRAM = Path(__file__).with_name("kills.py")

WORKS = ["training", "evaluation", "scoring, 2 ranks"]


@pytest.fixture(scope="module")
def struck(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("kills") / "outcomes.json"
    words = ["--few", "--mistakes", "--works", *WORKS, "--json", str(file)]
    run = subprocess.run(
        [sys.executable, str(PROGRAM), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert file.is_file(), run.stdout + run.stderr
    result: dict[str, Any] = json.loads(file.read_text())
    return result


@pytest.mark.slow
@pytest.mark.parametrize("work", WORKS)
def test_killed_and_started_again_nothing_is_torn_and_all_is_as_undisturbed(struck: dict[str, Any], work: str) -> None:
    outcomes = [outcome for outcome in struck["outcomes"] if outcome["work"] == work]
    assert len(outcomes) == (2 if "2 ranks" in work else 1)
    for outcome in outcomes:
        assert outcome["status"] == -9, outcome
        assert outcome["faults"] == [], outcome


@pytest.mark.slow
def test_the_other_process_says_in_a_line_that_one_is_gone(struck: dict[str, Any]) -> None:
    for outcome in struck["outcomes"]:
        if outcome["others"] is not None:
            (line,) = outcome["others"]["lines"]
            assert "Of the 2 processes of this run, rank " in line
            assert "the same command goes on where it was" in line
            assert outcome["others"]["left"] == []


@pytest.mark.slow
def test_a_mistake_of_one_process_is_said_by_it_and_by_the_others(struck: dict[str, Any]) -> None:
    for work, ((status, first), (status_too, second)) in struck["mistakes"].items():
        assert (status, status_too) == (2, 2), work
        assert "models/none" in first
        assert " on rank 1 (host " in first
        assert "; give all processes of a run the same " in first
        assert "give all processes" not in second, "all have found it, and the first says it"
        assert "Traceback" not in first + second


def test_the_harness_sees_torn_and_unlike_files(tmp_path: Path) -> None:
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps({"value": 1.5, "seconds": len(name)}))
        write_parquet(folder / "rows.parquet", pa.table({"js": [0.1, 0.2]}))
        np.savez(folder / "explorer.npz", js=np.array([0.1, np.nan]))
    first, second = tmp_path / "first", tmp_path / "second"
    assert unlike(first, second) == torn_files(first) == []
    np.savez(second / "explorer.npz", js=np.array([0.1, 0.2]))
    write_parquet(second / "rows.parquet", pa.table({"js": [0.1, 0.3]}))
    (second / "more.json").write_text("{}")
    assert unlike(first, second) == ["explorer.npz", "more.json", "rows.parquet"]
    for path in first.iterdir():
        os.truncate(path, path.stat().st_size // 2)
    assert torn_files(first) == ["explorer.npz", "rows.parquet", "summary.json"]
