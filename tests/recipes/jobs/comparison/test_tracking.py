"""Evaluations in the W&B runs of the trainings."""

from collections.abc import Callable
from pathlib import Path

import pytest
import wandb
from helpers.offline_wandb import summary as wandb_summary
from helpers.small_comparison import SCRIPTS, job_of

from tokenshift.recipes.compare_variants import result_of, run
from tokenshift.recipes.jobs.comparison.tracking import log_evaluations

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.mark.slow
def test_evaluation_goes_into_the_trainings_wandb_run(write_comparison: Callable[..., Path]) -> None:
    job = job_of(write_comparison(("[0, 1]", "[0]")))
    run(job, SCRIPTS)
    cell = job.cells[0]
    (cell.folder / "wandb_run_id.txt").write_text("abcd1234\n")
    log_evaluations(job.cells, [result_of(each) for each in job.cells])
    assert wandb.run is None
    (file,) = cell.folder.glob("wandb/offline-run-*-abcd1234/*.wandb")
    assert wandb_summary(file)["evaluation/accuracy"] == pytest.approx(cell.accuracy)
    log_evaluations(job.cells, [result_of(each) for each in job.cells])
    assert len(list(cell.folder.glob("wandb/offline-run-*"))) == 1
