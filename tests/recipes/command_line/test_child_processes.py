"""Processes that a comparison starts, and how they end."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tokenshift.recipes.command_line.child_processes import (
    FOLDER_VARIABLE,
    Children,
    end_orphans,
    shares,
    working_on,
)


def test_a_trainings_servants_outlive_it(tmp_path: Path) -> None:
    """Without its verification workers an orphaned training could not end with a checkpoint."""
    child = "import time; time.sleep(60)"
    parent = (
        "import pathlib, signal, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "def end(*_):\n"
        "    time.sleep(0.3)\n"
        "    pathlib.Path('served').write_text(str(child.poll()))\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path('ready').touch()\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, FOLDER_VARIABLE: str(tmp_path.resolve())}
    training = subprocess.Popen([sys.executable, "-c", parent], cwd=tmp_path, env=environment)
    while not (tmp_path / "ready").exists():
        assert training.poll() is None
        time.sleep(0.01)
    assert len(working_on(tmp_path)) == 2
    assert end_orphans(tmp_path) == 2
    assert (tmp_path / "served").read_text() == "None"
    training.wait()
    assert not working_on(tmp_path)


def test_children_are_killed_at_once(tmp_path: Path) -> None:
    children = Children()
    stubborn = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    )
    log = tmp_path / "log.txt"
    status: list[Any] = []

    def work() -> None:
        try:
            children.run([sys.executable, "-c", stubborn], tmp_path, log, {})
        except Exception as error:
            status.append(type(error).__name__)

    thread = threading.Thread(target=work)
    thread.start()
    while not log.is_file() or not log.read_text():
        time.sleep(0.01)
    assert children.stop() == 1
    assert thread.is_alive()
    children.kill()
    thread.join(10)
    assert status == ["Stopped"]


def test_shares_of_threads_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert shares(1) == [{}]
    assert shares(3) == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert [each["CUDA_VISIBLE_DEVICES"] for each in shares(2)] == ["4,5", "6,7"]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in shares(4)] == ["4", "5", "6", "7"]
