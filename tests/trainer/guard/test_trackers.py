"""Trackers that raise, hang or have no folder: training goes on, bit for bit."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import wandb
from helpers.offline_wandb import history
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


CASES = ("never", "back", "gone")

SCRIPT = """
import os, subprocess, sys, time
from pathlib import Path
from tokenshift.recipes.command_line.wandb_run import finish_wandb, start_wandb
import wandb

server = None
def serve():
    global server
    server = subprocess.Popen([sys.executable, sys.argv[2], port, str(folder / "received")], stdout=subprocess.DEVNULL)
    time.sleep(1.5)

for case, port in zip(sys.argv[3::2], sys.argv[4::2]):
    print("case", case, flush=True)
    folder = Path(sys.argv[1]) / case
    folder.mkdir()
    os.environ["WANDB_BASE_URL"] = f"http://127.0.0.1:{port}"
    os.environ["WANDB_INIT_TIMEOUT"] = "3" if case == "never" else "30"
    if case != "never":
        serve()
    start_wandb(folder, project="p", entity=None, group=None, name="n", config={}, resume=False)
    for step in range(6):
        wandb.log({"number": 1000 + step})
        if step == 2 and server is not None:
            time.sleep(2)
            server.kill()
            server.wait()
    if case == "back":
        serve()
    print("W&B:", finish_wandb(None, None), flush=True)
    if case == "back":
        server.kill()
    wandb.teardown()  # as at the end of a process: the next case has another server
"""


@pytest.fixture(scope="module")
def outages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder of each case, and what was printed in it, by one process that imports all once."""
    folder = tmp_path_factory.mktemp("outages")
    with ExitStack() as ports:
        sockets = [ports.enter_context(socket.socket()) for _ in CASES]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        numbers = [str(free.getsockname()[1]) for free in sockets]
    (folder / "script.py").write_text(SCRIPT)
    settings = {"WANDB_API_KEY": "a" * 40, "WANDB_MODE": "online", "WANDB_FINISH_TIMEOUT": "6"}
    settings["WANDB_DATA_DIR"] = str(folder / "wandb-data")
    words = [word for case in zip(CASES, numbers, strict=True) for word in case]
    with (folder / "said").open("w") as said:  # a pipe would be held open by W&B's service
        run = subprocess.run(
            [sys.executable, str(folder / "script.py"), str(folder), str(STUB), *words],
            stdout=said,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=500,
            env={**{name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}, **settings},
        )
    said_text = (folder / "said").read_text()
    assert run.returncode == 0, said_text
    parts = re.split(r"^case (\w+)\n", said_text, flags=re.MULTILINE)
    return folder, dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_an_unreachable_server(case: str, outages: tuple[Path, dict[str, str]]) -> None:
    folder, said_text = outages[0] / case, outages[1][case]
    (run,) = folder.glob("wandb/offline-run-*" if case == "never" else "wandb/run-*-*")
    assert list(run.glob("run-*.wandb")), "the run's file, for wandb sync"
    received = (folder / "received").read_text() if (folder / "received").exists() else ""
    numbers = [step for step in range(6) if f"{1000 + step}" in received]
    if case == "never":
        assert "W&B cannot be used online (CommError: " in said_text
        assert "this run is tracked offline." in said_text
        assert "W&B: offline; to upload it: wandb sync" in said_text
        (file,) = run.glob("run-*.wandb")
        assert [row["number"] for row in history(file)] == [1000 + step for step in range(6)]
    elif case == "back":
        assert numbers == list(range(6)), "an outage loses nothing"
    else:
        assert "to upload the rest: wandb sync" in said_text
