"""One owner of an output folder: locks, foreign files, and what each kind of run leaves."""

import json
import os
import re
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from tokenshift.analysis.comparison.report import WRITTEN
from tokenshift.analysis.storage.folder_lock import HOLDER_FILE, LOCK_FILE, FolderLock
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.recipes.command_line.entry import run_guarded
from tokenshift.recipes.command_line.output_folder import (
    FolderOwner,
    check_folder,
    open_folder,
    start_over,
    take_folder,
)
from tokenshift.recipes.command_line.products import FOLDER_KINDS, RunKind
from tokenshift.recipes.jobs.analysis.evaluation import EvaluationArguments


def hold(folder: Path, kind: str) -> int:
    """The id of a process that holds a folder until it is killed."""
    ready, started = os.pipe()
    process = os.fork()
    if not process:
        lock = FolderLock(folder, kind, "x")
        os.write(started, b"1" if lock else b"")
        signal.pause()
    assert os.read(ready, 1) == b"1"
    return process


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


# The lock --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(FOLDER_KINDS))
def test_a_folder_in_use_is_refused_until_its_holder_is_killed(tmp_path: Path, kind: RunKind) -> None:
    folder = tmp_path / "out"
    holder = hold(folder, kind)
    expected = (
        f"output_dir='out' is in use by another {kind}, process {holder} on the host {socket.gethostname()}; wait "
        "until it ends, or choose another --output_dir."
    )
    try:
        for attempt in (take_folder, check_folder):
            with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
                attempt(folder, kind, "output_dir='out'")
    finally:
        kill(holder)
    check_folder(folder, kind, "output_dir='out'")  # the stale name of the holder is no obstacle
    lock = take_folder(folder, kind, "output_dir='out'")
    assert lock is not None
    assert json.loads((folder / HOLDER_FILE).read_text())["process"] == os.getpid()
    lock.release()
    lock.release()
    assert [path.name for path in folder.iterdir()] == [LOCK_FILE]


@pytest.mark.parametrize(
    ("holder", "said"),
    [
        ("training", "in use by a training, process"),
        ("analysis", "in use by an analysis, process"),
        ("SFT control", "in use by an SFT control, process"),
    ],
)
def test_the_message_names_the_holders_kind(tmp_path: Path, holder: str, said: str) -> None:
    lock = FolderLock(tmp_path, holder, "x")
    with pytest.raises(ValueError, match=said):
        FolderLock(tmp_path, "comparison", "x")
    lock.release()


@pytest.mark.parametrize("content", [None, "", "{}", '{"kind": "training"}', "[]"])
def test_a_holder_that_is_not_named(tmp_path: Path, content: str | None) -> None:
    """As left by a version that named none."""
    lock = FolderLock(tmp_path, "analysis", "x")
    (tmp_path / HOLDER_FILE).unlink()
    if content is not None:
        (tmp_path / HOLDER_FILE).write_text(content)
    with pytest.raises(ValueError, match=r"^x is in use by another analysis; wait until it ends"):
        FolderLock(tmp_path, "analysis", "x")
    lock.release()


def test_a_lock_ends_with_its_object_and_not_in_a_forked_process(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path, "training", "x")
    child = os.fork()
    if not child:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(ValueError, match="in use by another training"):
        FolderLock(tmp_path, "training", "x")
    del lock
    FolderLock(tmp_path, "training", "x").release()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="x is a file"):
        take_folder(tmp_path / "file", "training", "x")
    with pytest.raises(ValueError, match="x cannot be written: Not a directory"):
        take_folder(tmp_path / "file" / "below", "training", "x")


@dataclass
class Job(FolderOwner):
    folder: Path


@pytest.mark.parametrize("outcome", [None, KeyboardInterrupt, RuntimeError])
def test_a_recipes_end_releases_its_folder(tmp_path: Path, outcome: type[BaseException] | None) -> None:
    jobs = []

    def prepare() -> Job:
        jobs.append(Job(tmp_path, lock=take_folder(tmp_path, "training", "x")))
        return jobs[0]

    def run(job: Job) -> None:
        with pytest.raises(ValueError, match="in use"):
            take_folder(tmp_path, "training", "x")
        if outcome is not None:
            raise outcome

    if outcome is RuntimeError:
        with pytest.raises(RuntimeError):
            run_guarded("x.py", prepare, run)
    else:
        assert run_guarded("x.py", prepare, run) == (130 if outcome else 0)
    lock = take_folder(tmp_path, "training", "x")
    assert lock is not None
    lock.release()


def test_a_refused_check_releases_the_folder(tmp_path: Path) -> None:
    def check() -> None:
        raise ValueError("x has other settings.")

    with pytest.raises(ValueError, match="x has other settings"):
        take_folder(tmp_path, "comparison", "x", check)
    FolderLock(tmp_path, "comparison", "x").release()


# Files of others -------------------------------------------------------------------------------------------------

MADE_BY: dict[RunKind, dict[str, str]] = {
    "analysis": {"settings.json": "{}", "summary.json": "{}", "report.html": ""},
    "training": {"base_score.json": "{}", "summary.json": '{"weighting": "w = 1"}', "checkpoint-3/x": ""},
    "SFT control": {"summary.json": '{"target_reached": true}', "checkpoint-3/x": ""},
    "comparison": {"cells/dapo-seed0/cell.json": "{}", "comparison.json": "{}"},
    "reproduction": {"reproduction_settings.json": "{}", "parts.json": "{}", "reproduction.json": "{}"},
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


@pytest.mark.parametrize("made", list(FOLDER_KINDS))
@pytest.mark.parametrize("wanted", list(FOLDER_KINDS))
def test_another_kinds_folder_is_refused_and_ones_own_is_not(tmp_path: Path, made: RunKind, wanted: RunKind) -> None:
    write(tmp_path, MADE_BY[made])
    if made == wanted:
        check_folder(tmp_path, wanted, "x")
        return
    for attempt in (check_folder, take_folder):
        with pytest.raises(ValueError, match=rf"^x has a \S+ that no {wanted} made; choose another --output_dir\.$"):
            attempt(tmp_path, wanted, "x")
    assert not (tmp_path / LOCK_FILE).exists()


@pytest.mark.parametrize(
    ("kind", "file", "refused"),
    [
        ("analysis", "models/mine.txt", True),
        ("analysis", "notes.txt", False),
        ("comparison", "figures/mine.svg", True),
        ("comparison", "notes.txt", False),
        ("training", "model/config.json", False),  # trainings before their first score have always been resumed
        ("training", "summary.json", False),
        ("SFT control", "summary.json", False),
    ],
)
def test_files_of_nobody(tmp_path: Path, kind: RunKind, file: str, refused: bool) -> None:
    write(tmp_path, {file: "damaged"})
    if refused:
        with pytest.raises(ValueError, match=f"has a {file.split('/')[0]} that no {kind} made"):
            check_folder(tmp_path, kind, "x")
    else:
        check_folder(tmp_path, kind, "x")


def test_starting_over_deletes_the_products_alone(tmp_path: Path) -> None:
    products = ["checkpoint-3/model.safetensors", "completions/a.parquet", "training_curves.svg", "model/config.json"]
    kept = ["analysis/settings.json", "notes.txt", "config.yaml", "completions.txt"]
    write(tmp_path, dict.fromkeys([*products, *kept], ""))
    start_over(tmp_path, "training")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


def test_the_comparisons_products_are_what_it_writes() -> None:
    assert set(FOLDER_KINDS["comparison"].products) == {*WRITTEN, "tensorboard", "wandb_run_id.txt"}


# An analysis' settings -------------------------------------------------------------------------------------------


def job_of(folder: Path, overwrite: bool = False) -> SimpleNamespace:
    args = EvaluationArguments(output_dir=str(folder), overwrite=overwrite)
    return SimpleNamespace(args=args, folder=RunFolder(folder), lock=None)


def opened(folder: Path, settings: dict, parts: dict | None = None, overwrite: bool = False) -> dict:
    """The settings that are in the folder after an analysis was opened and closed there."""
    job = job_of(folder, overwrite)
    open_folder(job, settings, parts)
    job.lock.release()
    return json.loads((folder / "settings.json").read_text())


def test_parts_are_added_and_others_kept(tmp_path: Path) -> None:
    assert opened(tmp_path, {"seed": 0}, {"model a": "1"}) == {"seed": 0, "parts": {"model a": "1"}}
    both = {"model a": "1", "model b": "2"}
    assert opened(tmp_path, {"seed": 0}, {"model b": "2"}) == {"seed": 0, "parts": both}
    assert opened(tmp_path, {"seed": 0}, {"model a": "1"}) == {"seed": 0, "parts": both}
    with pytest.raises(ValueError, match="holds an analysis with other contents of model b; choose another"):
        opened(tmp_path, {"seed": 0}, {"model b": "3"})
    assert opened(tmp_path, {"seed": 0}, {"model b": "3"}, overwrite=True)["parts"] == {"model b": "3"}


def test_a_refused_analysis_changes_nothing(tmp_path: Path) -> None:
    opened(tmp_path, {"seed": 0})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*")}
    with pytest.raises(ValueError, match="holds an analysis with seed=0, not 1; choose another --output_dir, or"):
        opened(tmp_path, {"seed": 1})
    with pytest.raises(ValueError, match="holds an analysis with seed=0, which is not given now; choose another"):
        opened(tmp_path, {"seed": None})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*")} == before
