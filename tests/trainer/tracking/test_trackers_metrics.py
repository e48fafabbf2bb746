"""Each tracker gets the same numbers of a training with a probe as the log history."""

import copy
import importlib.util
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import wandb
from datasets import Dataset
from helpers.offline_wandb import history
from helpers.tiny_training import Build
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from tokenshift.recipes.jobs.training.progress import FIRST, LineProgress, PanelProgress
from tokenshift.trainer.probe.files import ProbeFiles
from tokenshift.trainer.tracking.metrics import (
    ADDED,
    HEADLINE,
    NAMESPACES,
    POSITION,
    documented,
    documented_names,
    position_charts,
)
from tokenshift.trainer.tracking.run_names import missing_names, names_by_default, run_names

PROBED: dict[str, Any] = {"probe_steps": 2, "probe_size": 3, "divergence": "js", "max_steps": 4}


def probed(build: Build, problems: Dataset, **settings: Any) -> Any:
    trainer = build(**{**PROBED, "trainer_kwargs": {"probe_dataset": problems}, **settings})
    return trainer


class Recorder(TrainerCallback):
    """Keeps what it is given, as a tracker of the user's own would."""

    def __init__(self) -> None:
        self.logs: list[tuple[int, dict[str, Any]]] = []
        self.ended = False

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        assert not self.ended, "a tracker that has ended takes nothing"
        self.logs.append((state.global_step, dict(logs)))

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.ended = True


def numbers_of_history(trainer: Any, prefix: str) -> dict[tuple[int, str], float]:
    return {
        (log["step"], name): value
        for log in trainer.state.log_history
        for name, value in log.items()
        if name.startswith(prefix) and name != "shift/step"
    }


def test_every_watcher_gets_the_numbers_of_the_probe(
    build: Build, problems: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProbeFiles, "overlaps_with_last", lambda files, measure: {0: 0.25, 4: 1.0})
    recorder, trainer = Recorder(), probed(build, problems)
    trainer.callback_handler.callbacks.insert(1, recorder)  # where transformers puts trackers: before the probe
    trainer.train()
    given = {(step, name): value for step, logs in recorder.logs for name, value in logs.items()}
    expected = numbers_of_history(trainer, "shift/")
    assert {step for step, _ in expected} == {0, 2, 4}
    assert {key: value for key, value in given.items() if key[1].startswith("shift/")} == expected
    assert (expected[0, "shift/jaccard_last"], expected[4, "shift/top_p/jaccard_last"]) == (0.25, 1.0)
    losses = [step for step, logs in recorder.logs if "loss" in logs]
    assert losses == [1, 2, 3, 4], "a probe does not take the place of a log"


def rows_of_tensorboard(folder: Path) -> dict[tuple[int, str], float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for path in folder.rglob("events.out.tfevents*"):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
        for name in events.Tags()["scalars"]:
            found |= {(event.step, name): event.value for event in events.Scalars(name)}
    return found


def rows_of_mlflow(folder: Path) -> dict[tuple[int, str], float]:
    with sqlite3.connect(folder / "mlflow.db") as database:
        runs = database.execute("select count(*) from runs").fetchone()
        assert runs == (1,), "what comes at the end is in the same run"
        return {(step, key): value for step, key, value in database.execute("select step, key, value from metrics")}


def rows_of_trackio(folder: Path) -> dict[tuple[int, str], float]:
    (path,) = (folder / "trackio").rglob("*.db")
    found = {}
    with sqlite3.connect(path) as database:
        for (text,) in database.execute("select metrics from metrics"):
            row = json.loads(text)
            if "train/global_step" in row:  # TRL's profiler logs without
                found |= {(row["train/global_step"], name): value for name, value in row.items()}
    return found


TRACKERS = {"tensorboard": rows_of_tensorboard, "mlflow": rows_of_mlflow, "trackio": rows_of_trackio}


@pytest.mark.slow
@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracker_has_what_the_log_history_has(
    tracker: str, build: Build, problems: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec(tracker) is None:
        pytest.skip(f"{tracker} is not installed: pip install {tracker}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    if tracker == "trackio":  # which reads the environment when it is imported
        monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "runs"))
    trainer = probed(build, problems, report_to=[tracker])
    trainer.train()
    found = TRACKERS[tracker](tmp_path)
    for prefix in ("shift/", "divergence/", "divergence_position/", "advantage_weight/"):
        expected = numbers_of_history(trainer, prefix)
        assert expected
        own = {key: value for key, value in found.items() if key[1].startswith(prefix)}
        assert own.keys() == expected.keys(), prefix
        assert own == {key: pytest.approx(value, rel=1e-6, abs=1e-12) for key, value in expected.items()}


def test_wandb_has_charts_by_position_and_names_of_its_own(
    build: Build, problems: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setattr(wandb, "run", None)  # another test's would be gone on with
    trainer = probed(build, problems, report_to=["wandb"], max_steps=2)
    trainer.train()
    assert wandb.run is not None
    assert wandb.run.name == "high_js-seed3"
    assert {"tokenshift", "high_js", "dapo"} <= set(wandb.run.tags)
    wandb.finish()
    (path,) = tmp_path.rglob("*.wandb")
    rows = history(path)
    names = {name for row in rows for name in row}
    flat = {name for name in names if "/" in name}
    assert {"divergence/mean", "advantage_weight/mean", "train/reward", "shift/own/accuracy"} <= flat
    assert not [name for name in flat if name.startswith(("train/divergence", "train/shift", "train/advantage"))]
    assert not [name for name in flat if POSITION.fullmatch(name)]
    logged = numbers_of_history(trainer, "divergence_position/")
    charts = [row for row in rows if "divergence/position" in row]
    assert [row["train/global_step"] for row in charts] == [1, 2]
    for row in charts:
        step = row["train/global_step"]
        heights = row["divergence/position"]["values"]
        assert heights == [pytest.approx(logged.get((step, f"divergence_position/{i:02d}"), 0.0)) for i in range(20)]
        assert row["divergence/position"]["bins"][0] == 0
        assert row["divergence/position"]["bins"][-1] == 1
    probes = [row for row in rows if "shift/step" in row and "shift/mean" in row]
    assert [row["shift/step"] for row in probes] == [0, 2]
    for row in probes:
        for chart in ("shift/position", "shift/top_p/position", "shift/own/position", "shift/own/top_p/position"):
            assert len(row[chart]["values"]) == 20


def test_names_in_trackers() -> None:
    logs = {"reward": 1, "eval_loss": 2, "divergence/p95": 3, "shift/own/accuracy": 4, "clip_ratio/x": 5}
    assert documented_names(logs) == {
        "train/reward": 1,
        "eval/loss": 2,
        "train/clip_ratio/x": 5,
        "divergence/p95": 3,
        "shift/own/accuracy": 4,
    }
    before = integration_utils.rewrite_logs
    with documented():
        assert integration_utils.rewrite_logs(logs) == documented_names(logs)
    assert integration_utils.rewrite_logs is before


def test_charts_keep_all_other_metrics() -> None:
    charts = position_charts({"a": 1.0, "divergence_position/00": 0.5, "divergence_position/02": 0.25})
    assert charts.pop("a") == 1.0
    ((name, chart),) = charts.items()
    assert name == "divergence/position"
    assert list(chart.histogram) == [0.5, 0.0, 0.25] + [0.0] * 17
    assert list(chart.bins) == pytest.approx([part / 20 for part in range(21)])


def test_the_headline_is_of_metrics_that_are_logged(build: Build, problems: Dataset) -> None:
    trainer = probed(build, problems, max_steps=2)
    trainer.train()
    logged = {name for log in trainer.state.log_history for name in log}
    assert len(HEADLINE) == 10
    assert set(HEADLINE.values()) <= logged
    assert {name.partition("/")[0] for name in [*HEADLINE.values(), *ADDED.values()] if "/" in name} <= {
        *NAMESPACES,
        "completions",
    }


def test_names_that_the_user_gave_are_kept(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_TAGS"):
        monkeypatch.delenv(variable, raising=False)
    args = build(divergence_alpha=-100.0).args
    names = run_names(args, "outputs/mine/model", "trl-lib/DeepMath-103K")
    assert names["name"] == "low_k3-seed3"
    assert names["group"] == "model-DeepMath-103K"
    assert names["tags"] == ["tokenshift", "low_k3", "dapo", "model", "DeepMath-103K"]
    assert missing_names(names, {"WANDB_TAGS": "a,b"}).keys() == {"name", "group"}
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    with names_by_default(args, "pocket"):
        assert os.environ["WANDB_NAME"] == "low_k3-seed3"
        assert os.environ["WANDB_RUN_GROUP"] == "mine"
        assert os.environ["WANDB_TAGS"] == "tokenshift,low_k3,dapo,pocket"
    assert "WANDB_NAME" not in os.environ
    assert os.environ["WANDB_RUN_GROUP"] == "mine"
    named = copy.copy(args)
    named.run_name = "given"
    with names_by_default(named, None):
        assert "WANDB_NAME" not in os.environ


def test_terminals_show_the_headline(build: Build, problems: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = probed(build, problems, max_steps=2)
    trainer.add_callback(LineProgress())
    shown: list[dict[str, Any]] = []

    class Panel(PanelProgress):
        def on_log(self, *args: Any, logs: Any = None, **kwargs: Any) -> None:
            super().on_log(*args, logs=logs, **kwargs)
            shown.append(dict(self._glance))

    assert FIRST
    trainer.add_callback(Panel())
    trainer.train()
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("update ")]
    assert any("reward" in line and "D p95" in line for line in lines)
    assert "shift/" not in printed
    assert shown[-1]["reward"] == pytest.approx(trainer.state.log_history[-2].get("reward", shown[-1]["reward"]))
