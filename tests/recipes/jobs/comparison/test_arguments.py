"""Arguments that a comparison refuses before anything is launched."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.small_comparison import SCRIPTS, job_of, launches

from tokenshift.recipes.compare_variants import run
from tokenshift.recipes.jobs.comparison.arguments import prepare

pytestmark = pytest.mark.usefixtures("without_figures")


def test_other_settings_are_refused_or_made_anew(
    write_comparison: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    one = ("[0, 1]", "[0]")
    path = write_comparison(one)
    run(job_of(path), SCRIPTS)
    capsys.readouterr()
    write_comparison(one, ("  high_kl:", "  high_kl: {divergence_alpha: 50}"))
    with pytest.raises(ValueError, match=r"the training of the cell high_kl-seed0 was made with divergence_alpha=100"):
        job_of(path)
    run(job_of(path, "--overwrite"), SCRIPTS)
    assert launches(path)[4:] == ["high_kl-seed0 training", "high_kl-seed0 evaluation"]
    write_comparison(one, ("  high_kl:", "  high_kl: {divergence_alpha: 50}"), ("size: 6", "size: 5"))
    with pytest.raises(ValueError, match=r"the evaluation of the cell dapo-seed0 was made with size=6, not 5"):
        job_of(path)
    run(job_of(path, "--overwrite"), SCRIPTS)
    assert {line.split()[1] for line in launches(path)[6:]} == {"evaluation"}

    # the same settings in other words, defaults that are written out, and settings on which nothing depends
    write_comparison(
        one,
        ("  high_kl:", "  high_kl: {divergence_alpha: 5e+1, report_to: wandb, num_iterations: 1}"),
        ("size: 6", "size: 5\n  temperature: 1"),
        ("evaluation:", "parallel: 2\nevaluation:"),
    )
    job = job_of(path)
    with pytest.raises(ValueError, match=r"is in use by another comparison"):
        job_of(path)
    job.close()


def test_foreign_files_are_left_alone(write_comparison: Callable[..., Path]) -> None:
    path = write_comparison()
    (path.parent / "out" / "cells" / "dapo-seed0").mkdir(parents=True)
    (path.parent / "out" / "cells" / "dapo-seed0" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"has a cells/dapo-seed0 that no comparison made"):
        job_of(path, "--overwrite")
    assert (path.parent / "out" / "cells" / "dapo-seed0" / "thesis.txt").exists()
    mine = path.parent / "paper" / "figures" / "mine.svg"
    mine.parent.mkdir(parents=True)
    mine.write_text("drawn by hand")
    with pytest.raises(ValueError, match=r"paper' has a figures that no comparison made"):
        prepare(["--config", str(path), "--output_dir", str(path.parent / "paper"), "--overwrite"])
    assert mine.exists()


def test_settings_that_are_not_fields_are_compared_too(write_comparison: Callable[..., Path]) -> None:
    """The number of processes, of which batches are made, and what the problems are."""
    one, data = ("[0, 1]", "[0]"), write_comparison().parent / "mine.jsonl"
    lines = [json.dumps({"prompt": f"{number} + 1 = ?", "solution": str(number + 1)}) for number in range(8)]
    data.write_text("\n".join(lines[:6]))
    changes = [one, ("datasets: [pocket]\n  size: 6", f"datasets: {data}")]
    job = job_of(write_comparison(*changes))
    run(job, SCRIPTS)
    job.close()
    with pytest.raises(
        ValueError, match=r"the training of the cell dapo-seed0 was made with num_processes=None, not 2"
    ):
        job_of(write_comparison(*changes, ("seeds:", "launch: {config_file: ddp}\nseeds:")))
    settings = job.cells[0].folder / "evaluation" / "settings.json"
    settings.write_text(json.dumps({"parts": job.comparison.contents}))
    job_of(
        write_comparison(*changes, ("evaluation:", "evaluation:\n  resamples: 5"))
    ).close()  # no verdict depends on it
    data.write_text("\n".join(lines[2:]))
    with pytest.raises(ValueError, match=r"the evaluation of the cell dapo-seed0 was made with other problems in the"):
        job_of(write_comparison(*changes))


def test_not_launched_by_accelerate_itself(
    write_comparison: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"start it with plain python"):
        job_of(write_comparison())
