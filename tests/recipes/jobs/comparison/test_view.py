"""The live table of a comparison."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.small_comparison import job_of
from rich.console import Console

from tokenshift.recipes.command_line.console import duration
from tokenshift.recipes.jobs.comparison.view import ComparisonView, seconds_left


def test_live_table(write_comparison: Callable[..., Path]) -> None:
    cells = job_of(write_comparison()).cells
    for cell in cells[:3]:
        cell.folder.mkdir(parents=True)
    (cells[0].folder / "cell.json").write_text(json.dumps({"seconds": {"training": 90, "evaluation": 10}}))
    cells[0].enter("done")
    cells[0].accuracy = 0.8312
    cells[1].enter("training")
    cells[1].log.write_text("--- training\nupdate 1/4  reward 0.5\nupdate 2/4  reward 0.5\n")
    cells[2].enter("failed")
    console = Console(force_terminal=True, width=80, record=True, file=io.StringIO())
    console.print(ComparisonView(cells, 1, console).table())
    shown = console.export_text()
    assert re.search(r"dapo\s+0\.831\s+failed", shown)
    assert re.search(r"high_kl\s+2/4\s+·", shown)
    assert "1 of 4 cells" in shown
    assert seconds_left(cells, 1) == pytest.approx(200, abs=2)
    assert (duration(59.6), duration(61), duration(3720)) == ("1 min 00 s", "1 min 01 s", "1 h 02 min")
