"""Headline numbers and figures of an analysis in each tracker that is installed."""

import importlib.util
import json
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import wandb
from helpers.hand_table import table as hand_table
from helpers.made_comparison import everything, learned, summary_of
from helpers.made_sweep import made_sweep
from helpers.offline_wandb import history
from matplotlib.figure import Figure

from tokenshift.analysis import summarise
from tokenshift.analysis.cross_sampling.recovery import recovery_summary
from tokenshift.analysis.shift.robustness import robustness_row
from tokenshift.recipes.analyze_shift import prepare
from tokenshift.recipes.command_line import tracking, wandb_run
from tokenshift.recipes.command_line.tracking import TrackedArguments, report_analysis
from tokenshift.recipes.jobs.analysis.headline import (
    cross_numbers,
    evaluation_numbers,
    robustness_numbers,
    shift_numbers,
)
from tokenshift.recipes.jobs.comparison.arguments import prepare as prepare_comparison
from tokenshift.recipes.jobs.comparison.tracking import comparison_numbers
from tokenshift.recipes.jobs.reproduction.tracking import reproduction_numbers
from tokenshift.trainer.tracking.metrics import documented_names

LOGS = [(5, {"accuracy": 0.5, "accuracy_low": 0.25, "gone": None}), (10, {"accuracy": 0.75})]
EXPECTED = {(5, "analysis/accuracy"): 0.5, (5, "analysis/accuracy_low"): 0.25, (10, "analysis/accuracy"): 0.75}


@dataclass
class Arguments(TrackedArguments):
    """The arguments that an analysis reports by."""

    output_dir: str = ""
    size: int = field(default=7)


@pytest.fixture
def args(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    figure = Figure()
    figure.subplots().plot([0, 1])
    (tmp_path / "out" / "figures").mkdir(parents=True)
    figure.savefig(tmp_path / "out" / "figures" / "curve.png", dpi=30)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "settings_to_record", lambda arguments: {"size": arguments[0].size})
    return Arguments(output_dir=str(tmp_path / "out"))


def of_tensorboard(folder: Path) -> tuple[dict[tuple[int, str], float], int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "out" / "tensorboard")).Reload()
    scalars = {(one.step, name): one.value for name in events.Tags()["scalars"] for one in events.Scalars(name)}
    return scalars, len(events.Images("analysis/curve"))


def of_trackio(folder: Path) -> tuple[dict[tuple[int, str], float], int]:
    (path,) = (folder / "trackio").rglob("*.db")
    scalars, images = {}, 0
    with sqlite3.connect(path) as database:
        for (text,) in database.execute("select metrics from metrics"):
            row = json.loads(text)
            step = row.pop("train/global_step")
            images += "analysis/curve" in row
            scalars |= {(step, name): value for name, value in row.items() if not isinstance(value, dict)}
    return scalars, images


def of_mlflow(folder: Path) -> tuple[dict[tuple[int, str], float], int]:
    with sqlite3.connect(folder / "mlflow.db") as database:
        rows = {(step, key): value for step, key, value in database.execute("select step, key, value from metrics")}
    return rows, len(list(folder.rglob("artifacts/figures/curve.png")))


TRACKERS = {"tensorboard": of_tensorboard, "trackio": of_trackio, "mlflow": of_mlflow}


@pytest.mark.slow
@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracker_has_numbers_and_figures(
    tracker: str, args: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec(tracker) is None:
        pytest.skip(f"{tracker} is not installed: pip install {tracker}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    if tracker == "trackio":  # which reads the environment when it is imported
        monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    args.report_to = [tracker]
    report_analysis(args, "analysis", LOGS, "shift of it")
    scalars, figures = TRACKERS[tracker](tmp_path)
    assert {key: value for key, value in scalars.items() if key[1].startswith("analysis/")} == EXPECTED
    assert figures == 1


def test_wandb_goes_on_in_the_same_run(
    args: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "run", None)
    args.report_to = ["wandb"]
    for _ in range(2):
        report_analysis(args, "analysis", LOGS, "shift of it")
    assert wandb.run is None
    assert "W&B: offline; to upload it: wandb sync" in capsys.readouterr().out
    files = sorted((tmp_path / "out").rglob("*.wandb"))
    assert len({file.stem for file in files}) == 1
    rows = history(files[0])
    found = {
        (row["train/global_step"], name): value
        for row in rows
        for name, value in row.items()
        if name.startswith("analysis/") and not isinstance(value, dict)
    }
    assert found == EXPECTED
    assert [row["analysis/curve"]["_type"] for row in rows if "analysis/curve" in row] == ["image-file"]


def test_a_tracker_that_fails_stops_nothing(args: Arguments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "run", None)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr(wandb_run.wandb, "log", fail)
    args.report_to = ["wandb"]
    report_analysis(args, "analysis", LOGS, "shift of it")
    assert wandb.run is None


@pytest.mark.parametrize("given", [None, [], ["none"], "none"])
def test_nothing_is_asked_for(args: Arguments, given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "CallbackHandler", lambda *_: pytest.fail("a tracker began"))
    args.report_to = given
    report_analysis(args, "analysis", LOGS, "shift of it")
    assert [path.name for path in Path(args.output_dir).iterdir()] == ["figures"]


@pytest.mark.parametrize("question", ["analysis", "cross", "evaluation", "comparison", "reproduction"])
def test_names_are_the_documented_ones(question: str, args: Arguments) -> None:
    report_analysis(args, question, LOGS, "shift of it")  # asserts that trackers know its names
    assert documented_names({f"{question}/a": 1.0, "loss": 2.0}) == {f"{question}/a": 1.0, "train/loss": 2.0}


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="report_to has 'wandbb', which is no tracker; did you mean wandb"):
        Arguments(report_to=["wandbb"])
    with pytest.raises(ValueError, match=r"report_to=\['wandb'\] has no effect: dry_run has no result"):
        prepare_comparison(["--dry_run", "--report_to", "wandb"])
    with pytest.raises(ValueError, match="report_to takes the numbers of one run"):
        prepare(["--rl_model", "a", "b", "--report_to", "wandb"])


def test_headline_numbers_are_the_summaries() -> None:
    table = hand_table()
    js = table["js"].to_numpy()
    numbers = shift_numbers(summarise(table, measure="js", resamples=20))
    assert numbers["rl/frac_near_zero"] == pytest.approx((js < 0.001).mean())
    assert numbers["rl/js"] == pytest.approx(js.mean(), rel=1e-6)
    assert {"rl/frac_high", "rl/frac_high_low", "rl/frac_high_high"} <= numbers.keys()
    crossed = cross_numbers(recovery_summary(made_sweep(20, 8), 50))
    assert crossed["gain"] == pytest.approx(16 / 24)
    assert crossed["forward/js_top_p/tokens_for_90"] == pytest.approx(0.09)
    assert crossed["forward/random_disagreement/tokens_for_90"] is None
    entry = {"value": 0.5, "low": 0.25, "high": 0.75, "problems": 3}
    group = {"models": {"x": {"mean@1": entry}, "y": {"mean@1": None}}}
    group["comparison"] = {"mean@1": {"difference": 0.125, "low": None, "high": None}}
    summary = {"models": ["x", "y"], "metrics": ["mean@1"], "groups": {"pocket": group}}
    assert evaluation_numbers(summary) == {
        "pocket/A/mean@1": 0.5,
        "pocket/A/mean@1_low": 0.25,
        "pocket/A/mean@1_high": 0.75,
        **{f"pocket/difference/mean@1{end}": number for end, number in (("", 0.125), ("_low", None), ("_high", None))},
    }


def test_numbers_of_settings_of_a_robustness_analysis() -> None:
    table = hand_table()
    settings = [{"trajectories": "rl", "temperature": 0.7, "top_p": top_p} for top_p in (0.9, 1.0)]
    measures = ("js_top_p", "js")
    rows = [robustness_row(table, setting, measure, 20) for setting, measure in zip(settings, measures, strict=True)]
    numbers = robustness_numbers(rows)
    for truncation, measure in zip(("top_p_0.9", "whole"), measures, strict=True):
        values, start = table[measure].to_numpy(), f"rl/temperature_0.7/{truncation}"
        assert numbers[f"{start}/frac_near_zero"] == pytest.approx((values < 0.001).mean())
        assert numbers[f"{start}/frac_high"] == pytest.approx((values > 0.1).mean())
        assert numbers[f"{start}/frac_high_low"] <= numbers[f"{start}/frac_high"] <= numbers[f"{start}/frac_high_high"]
    assert len(numbers) == 2 * 4 * 3


def test_numbers_of_a_comparison() -> None:
    arms, seeds = ["dapo", "high_kl"], [0, 1, 2]
    summary = summary_of(learned(everything(arms, [*seeds, 7, 8])), arms, seeds, replication=[7, 8])
    numbers = comparison_numbers(summary)
    dapo, high_kl = summary["variants"]
    assert numbers["dapo/accuracy"] == dapo["accuracy"]["value"]
    assert numbers["high_kl/learning_area_low"] == high_kl["learning_area"]["low"]
    difference = numbers["high_kl/difference/accuracy"]
    assert difference == pytest.approx(high_kl["accuracy"]["value"] - dapo["accuracy"]["value"])
    assert numbers["high_kl/difference/accuracy_p_holm"] == high_kl["accuracy"]["difference"]["p_holm"]
    assert not [name for name in numbers if name.startswith("dapo/difference")]
    replicated = summary["replication"]["variants"][1]["accuracy"]["value"]
    assert numbers["replication/high_kl/accuracy"] == replicated != numbers["high_kl/accuracy"]


def test_numbers_of_a_reproduction() -> None:
    verdicts = {2: ["seen", "open: 2 runs are too few", "seen in this run"], 5: ["not seen"]}
    rows = [
        {"id": f"{section} / Top-k / DAPO, AIME24 / {name}: < 5 %", "section": section, "verdict": verdict}
        for section, words in verdicts.items()
        for name, verdict in zip("abc", words, strict=False)
    ]
    estimates = [{"value": 0.5, "low": 0.25, "high": None}, None, None, None]
    numbers = reproduction_numbers({"rows": [row | {"estimate": e} for row, e in zip(rows, estimates, strict=True)]})
    assert numbers == {
        "section_2/seen": 2,
        "section_2/open": 1,
        "section_2/not_seen": 0,
        "section_5/seen": 0,
        "section_5/open": 0,
        "section_5/not_seen": 1,
        "section_2/Top-k/DAPO_AIME24/a_5": 0.5,
        "section_2/Top-k/DAPO_AIME24/a_5_low": 0.25,
        "section_2/Top-k/DAPO_AIME24/a_5_high": None,
    }
