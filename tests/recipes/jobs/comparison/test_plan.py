"""The plan of a comparison: from a number or a former comparison, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.small_comparison import SCRIPTS, job_of

from tokenshift.analysis.comparison.coverage import ENOUGH_SEEDS
from tokenshift.analysis.comparison.planning import Spread, seeds_needed
from tokenshift.recipes.compare_variants import main, run
from tokenshift.recipes.jobs.comparison.plan import make_plan

pytestmark = pytest.mark.usefixtures("without_figures")


def test_a_former_comparison_is_a_pilot(
    write_comparison: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_comparison(("  high_kl:", "  high_kl:\n  low_kl:"))
    run(job_of(path), SCRIPTS)
    out = path.parent / "out"
    summary = json.loads((out / "comparison.json").read_text())
    assert summary["outcome"] == {
        "name": "learning_area",
        "asked": "learning_area",
        "rewards": ["reward"],
        "updates": [4],
    }
    areas = np.array([list(row["learning_area"]["by_seed"].values()) for row in summary["variants"]])
    plan = make_plan(str(out), 20.0, "learning_area")
    variances = [np.var(areas[one] - areas[two], ddof=1) for one, two in ((0, 1), (0, 2), (1, 2))]
    assert plan.spread.value == pytest.approx(100 * np.sqrt(np.mean(variances)))
    assert (plan.spread.degrees, plan.comparisons) == (2, 2)
    needed = seeds_needed(20.0, plan.spread)
    assert needed is not None
    assert plan.recommended == max(needed, ENOUGH_SEEDS[True])
    capsys.readouterr()
    assert main(["--plan", str(out / "comparison.json"), "--effect", "20"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{plan.recommended:,} seeds of each variant show a true difference of 20 points" in printed
    assert "3 variants x 2 seeds" in printed

    # one that was made before has no area in its summary, but it has the trainings' logs
    for row in summary["variants"]:
        del row["learning_area"]
    (out / "comparison.json").write_text(json.dumps(summary))
    assert make_plan(str(out), 20.0, "learning_area").spread == plan.spread
    for log in out.glob("cells/*/log_history.json"):
        log.unlink()
    with pytest.raises(ValueError, match=r"0 of its variants has the outcome.* another is --outcome final_accuracy"):
        make_plan(str(out), 20.0, "learning_area")
    assert make_plan(str(out), 20.0, "final_accuracy").recommended >= ENOUGH_SEEDS[False]


def test_a_known_spread(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plan", "4", "--effect", "2"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "34 seeds of each variant show a true difference of 2 points with a power of at least 80 %" in printed
    assert seeds_needed(2.0, Spread(4.0)) == 34
    assert main(["--plan", "3", "--effect", "2"]) == 0  # 20 would do, whose intervals do not hold often enough
    printed = " ".join(capsys.readouterr().out.split())
    assert "25 seeds of each variant show a true difference of 2 points" in printed
    assert "With fewer than 25 seeds, intervals of the area under the learning curve are approximate" in printed
    assert main(["--plan", "0.5", "--effect", "2", "--outcome", "final_accuracy"]) == 0
    assert f"With fewer than {ENOUGH_SEEDS[False]} seeds, intervals" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--plan", "3"], "plan='3' needs an effect; give the true difference in points"),
        (["--effect", "2"], "effect=2 has no effect without plan"),
        (["--plan", "0", "--effect", "2"], "plan=0 must be above 0"),
        (["--plan", "nan", "--effect", "2"], "plan=nan must be above 0"),
        (["--plan", "3", "--effect", "-2"], "effect=-2 must be above 0"),
        (["--plan", "3", "--effect", "2", "--dry_run"], "dry_run=True has no effect: plan launches nothing"),
        (["--plan", "3", "--effect", "2", "--report_to", "wandb"], "report_to=['wandb'] has no effect: plan launches"),
        (["--plan", "nowhere", "--effect", "2"], "plan='nowhere' is not a file; give a former comparison's folder"),
        (["--plan", "3", "--effect", "2", "--outcome", "acuracy"], "outcome='acuracy' is not known"),
    ],
)
def test_mistakes(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"variants": 3, "baseline": "x"}', '{"variants": [{}], "baseline": ""}']
)
def test_files_that_are_no_comparison(text: str, tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text(text)
    with pytest.raises(ValueError, match="is damaged, or is no comparison"):
        make_plan(str(tmp_path), 2.0, "learning_area")
