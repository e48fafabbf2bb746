"""Two runs never write into one folder, whoever starts them, and a killed run never blocks one."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.tiny_training import Build

from tokenshift.analysis.storage import folder_lock
from tokenshift.analysis.storage.folder_lock import HOLDER_FILE, LOCK_FILE, FolderLock, borrow_folder

HOLD = """
import sys, time
from pathlib import Path
from tokenshift.analysis.storage.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]), "training", "x")
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Any:
    """A process that holds `out` until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_training_from_python_holds_its_folder(build: Build, tmp_path: Path, holder: Any) -> None:
    trainer = build(max_steps=1)
    expected = f"is in use by another training, process {holder.pid} on the host {socket.gethostname()}; wait"
    for asked in (None, True):
        with pytest.raises(ValueError, match=re.escape(expected)):
            trainer.train(resume_from_checkpoint=asked)
    assert trainer.state.global_step == 0
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    trainer.train()
    assert trainer.state.global_step == 1
    assert not (tmp_path / "out" / HOLDER_FILE).exists()
    FolderLock(tmp_path / "out", "training", "x").release()  # others may use the folder now


def test_a_training_in_the_folder_of_its_recipe(build: Build, tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "out", "training", "x")
    build(max_steps=1).train()
    with pytest.raises(ValueError, match="in use by another training"):  # the recipe holds it still
        FolderLock(tmp_path / "out", "training", "x")
    lock.release()


def test_two_trainings_of_one_process(tmp_path: Path) -> None:
    give_back = borrow_folder(tmp_path, "training", "x")
    with pytest.raises(ValueError, match=rf"in use by another training, process {os.getpid()}"):
        borrow_folder(tmp_path / ".." / tmp_path.name, "training", "x")
    give_back()
    borrow_folder(tmp_path, "training", "x")()


def test_a_failed_training_gives_its_folder_back(build: Build, tmp_path: Path) -> None:
    def fail(**columns: Any) -> list[float]:
        raise RuntimeError("a user's reward")

    with pytest.raises(ValueError, match=r"raised RuntimeError in .*: a user's reward"):
        build(max_steps=1, trainer_kwargs={"reward_funcs": fail}).train()
    FolderLock(tmp_path / "out", "training", "x").release()


# Shared file systems -------------------------------------------------------------------------------------------------


ELSEWHERE = {"kind": "training", "host": "node7", "process": 123}


def left_by_another_host(folder: Path) -> Path:
    (folder / HOLDER_FILE).write_text(json.dumps(ELSEWHERE))
    return folder / HOLDER_FILE


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats and watches of a fraction of a second."""
    monkeypatch.setattr(folder_lock, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(folder_lock, "WATCH_SECONDS", 1.5)


@pytest.fixture(params=["locks of one host alone", "no locks"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no locks":

        def refuse(self: Any, **options: Any) -> None:
            raise OSError(37, "No locks available")

        monkeypatch.setattr(folder_lock.FileLock, "acquire", refuse)


@pytest.mark.usefixtures("brief", "file_system")
def test_a_run_that_lives_on_another_host_is_seen(tmp_path: Path) -> None:
    file, ended = left_by_another_host(tmp_path), threading.Event()
    beats = threading.Thread(target=folder_lock._touch, args=(file, ended, threading.RLock(), ELSEWHERE))
    beats.start()
    try:
        expected = "x is in use by another training, process 123 on the host node7; wait until it ends"
        with pytest.raises(ValueError, match=expected):
            FolderLock(tmp_path, "training", "x")
        assert file.exists()
    finally:
        ended.set()
        beats.join()
    FolderLock(tmp_path, "training", "x").release()  # its host is gone


@pytest.mark.usefixtures("brief", "file_system")
def test_the_holder_is_seen_by_its_touches(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path, "training", "x")
    first = (tmp_path / HOLDER_FILE).stat().st_mtime_ns
    deadline = time.monotonic() + 20
    while (tmp_path / HOLDER_FILE).stat().st_mtime_ns == first:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(ValueError, match=f"process {os.getpid()} on the host {socket.gethostname()}"):
        FolderLock(tmp_path, "training", "x")
    lock.release()
    FolderLock(tmp_path, "training", "x").release()


# Files of the lock that somebody deletes -----------------------------------------------------------------------------


def test_a_deleted_lock_file_lets_nobody_in(tmp_path: Path, holder: Any) -> None:
    (tmp_path / "out" / LOCK_FILE).unlink()
    with pytest.raises(ValueError, match=rf"in use by another training, process {holder.pid} on the host"):
        FolderLock(tmp_path / "out", "training", "x")
    holder.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while psutil.Process(holder.pid).status() != psutil.STATUS_ZOMBIE:  # nobody has waited for it yet
        assert time.monotonic() < deadline
        time.sleep(0.01)
    FolderLock(tmp_path / "out", "training", "x").release()


def test_a_file_of_a_process_of_another_time_is_none_of_a_holder(tmp_path: Path) -> None:
    holder = {"kind": "training", "host": socket.gethostname(), "process": os.getppid(), "started": 12345.0}
    (tmp_path / HOLDER_FILE).write_text(json.dumps(holder))
    FolderLock(tmp_path, "training", "x").release()


def wait_for_text(words: str, caplog: pytest.LogCaptureFixture) -> None:
    deadline = time.monotonic() + 20
    while words not in caplog.text:
        assert time.monotonic() < deadline, caplog.text
        time.sleep(0.02)


@pytest.mark.usefixtures("brief")
def test_the_holder_writes_its_file_anew_and_tells_of_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lock = FolderLock(tmp_path, "training", "x")
    written = (tmp_path / HOLDER_FILE).read_text()
    for file in (LOCK_FILE, HOLDER_FILE):
        (tmp_path / file).unlink()
    wait_for_text("was deleted while this run holds the folder", caplog)
    assert (tmp_path / HOLDER_FILE).read_text() == written
    left_by_another_host(tmp_path)
    wait_for_text("process 123 on the host node7 has taken the folder", caplog)
    lock.release()
    time.sleep(0.3)
    assert json.loads((tmp_path / HOLDER_FILE).read_text()) == ELSEWHERE, "it is the other's now"


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "{}", '"text"', "\xff", '{"host": 3, "process": "x", "started": []}']
)
def test_a_damaged_file_of_the_holder_keeps_nobody_out(tmp_path: Path, content: str) -> None:
    (tmp_path / HOLDER_FILE).write_text(content, encoding="latin-1")
    lock = FolderLock(tmp_path, "training", "x")
    (tmp_path / HOLDER_FILE).write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match="x is in use by another training; wait"):
        FolderLock(tmp_path, "training", "x")
    lock.release()
