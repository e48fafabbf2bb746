"""Trackers that raise, hang or have no folder: training goes on, bit for bit."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import wandb
from helpers.tiny_training import SETTINGS, Build, parameters, same
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from tokenshift.recipes.command_line.products import RUN_ID_FILE
from tokenshift.recipes.command_line.wandb_run import finish_wandb, start_wandb
from tokenshift.trainer import DivergenceGRPOConfig
from tokenshift.trainer.guard import trackers

STUB = Path(__file__).parents[2] / "helpers" / "wandb_stub.py"


class Tracker(TrainerCallback):
    """A tracker as transformers' are, which raises where it is told to."""

    fails: Callable[[str, int], bool] = staticmethod(lambda event, step: False)
    taken: list[tuple[int, float]] = []

    def __init__(self) -> None:
        self._initialized = False
        type(self).taken = []

    def _maybe_raise(self, event: str, step: int) -> None:
        if type(self).fails(event, step):
            raise ConnectionError(f"no answer\nto {event}")

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._maybe_raise("on_init_end", 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._maybe_raise("on_train_begin", state.global_step)
        self._initialized = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self._maybe_raise("on_log", state.global_step)
        if "loss" in logs:
            type(self).taken.append((state.global_step, logs["loss"]))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._maybe_raise("on_train_end", state.global_step)


@pytest.fixture(params=sorted(trackers.PACKAGES))
def tracker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a tracker, each of those that `report_to` takes; its callback is a `Tracker`."""
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, request.param, type("Fake", (Tracker,), {}))
    monkeypatch.setitem(trackers.PACKAGES, request.param, ("package", lambda: True))
    monkeypatch.setattr(trackers, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(trackers, "_told", set())
    return request.param


def test_every_tracker_of_report_to_is_known() -> None:
    known = set(integration_utils.INTEGRATION_TO_CALLBACK) - {"kubeflow"}  # which needs no package
    assert known == set(trackers.PACKAGES)


def test_no_tracker_is_left_unprotected(
    tracker: str, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where W&B begins an offline run
    kind = integration_utils.INTEGRATION_TO_CALLBACK[tracker]
    kind.fails = staticmethod(lambda event, step: True)
    trainer = build(report_to=[tracker], max_steps=1)
    (callback,) = (each for each in trainer.callback_handler.callbacks if isinstance(each, kind))
    for event in trackers.EVENTS:
        getattr(callback, event)(trainer.args, trainer.state, trainer.control, logs={"loss": 1.0})
    assert (wandb.run is not None) == (tracker == "wandb"), "which falls back to offline"
    wandb.finish()


@pytest.mark.parametrize("tracker", ["mlflow"], indirect=True)
def test_an_outage_loses_nothing(tracker: str, build: Build, caplog: pytest.LogCaptureFixture) -> None:
    untracked = build(report_to=[])
    untracked.train()
    kind = integration_utils.INTEGRATION_TO_CALLBACK[tracker]
    calls = count()  # the second log is not taken, nor is it when the third one comes

    def fails(event: str, step: int) -> bool:
        return event in ("on_init_end", "on_train_begin") or (event == "on_log" and next(calls) in (1, 2))

    kind.fails = staticmethod(fails)
    trainer = build(report_to=[tracker])
    trainer.train()
    assert same(parameters(untracked), parameters(trainer))
    logged = [(log["step"], log["loss"]) for log in trainer.state.log_history if "loss" in log]
    assert kind.taken == logged, "each log once, in order, with the update that it is of"
    told = [record.getMessage() for record in caplog.records if "mlflow failed" in record.getMessage()]
    assert len(told) == 1
    assert "mlflow failed (ConnectionError: no answer to on_init_end)" in told[0]


def test_what_is_not_installed_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    settings = {**SETTINGS, "output_dir": str(tmp_path)}
    with pytest.raises(ValueError, match="report_to has 'wandbb', which is no tracker; did you mean wandb"):
        DivergenceGRPOConfig(**{**settings, "report_to": ["wandbb"]})
    missing = [name for name, (_, there) in trackers.PACKAGES.items() if not there()]
    for name in missing:
        with pytest.raises(ValueError, match=f"report_to has '{name}', which is not installed: pip install"):
            DivergenceGRPOConfig(**{**settings, "report_to": name})


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("wandb", RUN_ID_FILE):
        (tmp_path / name).mkdir() if name == RUN_ID_FILE else (tmp_path / name).write_text("a file")
    start_wandb(tmp_path, project="p", entity=None, group=None, name=None, config={}, resume=False)
    wandb.log({"a": 1})
    finish_wandb(None, None)
    assert (tmp_path / "wandb").read_text() == "a file"


SCRIPT = """
import json, subprocess, sys, time
from pathlib import Path
from tokenshift.recipes.command_line.wandb_run import finish_wandb, start_wandb
import wandb

folder, port, server = Path(sys.argv[1]), sys.argv[2], None
def serve():
    global server
    server = subprocess.Popen([sys.executable, sys.argv[3], port, str(folder / "received")], stdout=subprocess.DEVNULL)
    time.sleep(1.5)

if sys.argv[4] != "never":
    serve()
start_wandb(folder, project="p", entity=None, group=None, name="n", config={}, resume=False)
for step in range(6):
    wandb.log({"number": 1000 + step})
    if step == 2 and server is not None:
        time.sleep(2)
        server.kill()
        server.wait()
if sys.argv[4] == "back":
    serve()
print("W&B:", finish_wandb(None, None), flush=True)
if server is not None:
    server.kill()
"""


@pytest.mark.slow
@pytest.mark.parametrize("case", ["never", "back", "gone"])
def test_an_unreachable_server(case: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    (tmp_path / "script.py").write_text(SCRIPT)
    settings = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": f"http://127.0.0.1:{port}", "WANDB_MODE": "online"}
    limits = {"WANDB_INIT_TIMEOUT": "3" if case == "never" else "30", "WANDB_FINISH_TIMEOUT": "6"}
    with (tmp_path / "said").open("w") as said:  # a pipe would be held open by W&B's service
        run = subprocess.run(
            [sys.executable, str(tmp_path / "script.py"), str(tmp_path), port, str(STUB), case],
            stdout=said,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=200,
            env={**os.environ, **settings, **limits},
        )
    said_text = (tmp_path / "said").read_text()
    assert run.returncode == 0, said_text
    (folder,) = (
        (tmp_path / "wandb").glob("*run-*-*") if case != "never" else (tmp_path / "wandb").glob("offline-run-*")
    )
    assert list(folder.glob("run-*.wandb")), "the run's file, for wandb sync"
    received = (tmp_path / "received").read_text() if (tmp_path / "received").exists() else ""
    numbers = [step for step in range(6) if f"{1000 + step}" in received]
    if case == "never":
        assert "W&B cannot be used online (CommError: " in said_text
        assert "this run is tracked offline." in said_text
        assert "W&B: offline; to upload it: wandb sync" in said_text
    elif case == "back":
        assert numbers == list(range(6)), "an outage loses nothing"
    else:
        assert "to upload the rest: wandb sync" in said_text
