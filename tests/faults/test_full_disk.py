"""Disks that are full or read-only: looked at before a run; in the middle of one, a line and a whole last state."""

import errno
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from datasets import Dataset
from helpers.tiny_training import Build, parameters, same
from safetensors import SafetensorError
from transformers import TrainerState

from tokenshift.analysis.storage import disk
from tokenshift.analysis.storage.disk import DiskFaultError, DiskFullError, as_bytes, disk_fault, folder_bytes
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import whole_file, write_whole
from tokenshift.recipes.command_line.entry import run_guarded
from tokenshift.recipes.command_line.output_folder import open_folder
from tokenshift.recipes.jobs.training.preparation import prepare_training_output
from tokenshift.trainer.resume import checkpoints, disk_space
from tokenshift.trainer.resume.disk_space import checkpoint_bytes, kept_checkpoints, updates_of
from tokenshift.trainer.resume.examination import examine, newest_whole

SAVING = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3}


def leave_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, free))


# Before a run --------------------------------------------------------------------------------------------------


def test_a_training_that_will_not_fit_is_refused(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = build(**SAVING, save_total_limit=1, probe_steps=1, probe_size=2)
    checkpoint, model = checkpoint_bytes(trainer)
    expected = (
        f"has 1 kB free, but the run writes about {as_bytes(2 * checkpoint + model)} (2 checkpoints of "
        f"{as_bytes(checkpoint)}, a model of {as_bytes(model)}, probe tables of at most "
    )
    with monkeypatch.context() as patch:
        leave_free(patch, 1000)
        with pytest.raises(DiskFullError) as told:
            trainer.train()
    assert expected in str(told.value)
    assert trainer.state.global_step == 0
    with monkeypatch.context() as patch:
        leave_free(patch, 2 * checkpoint + model + 10)
        trainer.train()
    assert "but the run writes up to" in caplog.text  # responses are shorter than they may be, so it begins
    written = folder_bytes(tmp_path / "out" / "checkpoint-3")
    assert 0.7 * written < checkpoint < 1.3 * written


def test_the_checkpoints_that_are_kept_are_counted(build: Build) -> None:
    def kept(**settings: Any) -> int:
        return kept_checkpoints(build(**settings))

    assert kept() == 0  # save_strategy="no"
    assert kept(save_strategy="steps", save_steps=3, max_steps=10) == 4
    assert kept(save_strategy="steps", save_steps=3, max_steps=10, save_total_limit=2) == 3
    assert kept(save_strategy="steps", save_steps=0.1, max_steps=50) == 10
    assert kept(save_strategy="epoch", max_steps=-1, num_train_epochs=3) == 3
    trainer = build(max_steps=-1, num_train_epochs=2)
    trainer.train()
    assert trainer.state.max_steps == updates_of(trainer)


def test_an_earlier_run_is_not_deleted_for_one_that_will_not_fit(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer: Any = build(**SAVING)
    old = tmp_path / "out" / "checkpoint-9" / "model.safetensors"
    old.parent.mkdir(parents=True)
    old.write_bytes(bytes(1000))
    args = SimpleNamespace(resume_from_checkpoint=None)
    job: Any = SimpleNamespace(script_args=SimpleNamespace(overwrite=True), args=args, output_dir=tmp_path / "out")
    monkeypatch.setattr("tokenshift.recipes.jobs.training.preparation.record_training", lambda job: None)
    leave_free(monkeypatch, 1000)
    with pytest.raises(DiskFullError, match="has 2 kB free"):
        prepare_training_output(job, trainer)
    assert old.exists()
    leave_free(monkeypatch, 10**9)
    prepare_training_output(job, trainer)
    assert not old.exists()


def test_an_analysis_is_told_of_too_little_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tokenshift.recipes.command_line.output_folder.record_launch", lambda *words, **facts: None)
    leave_free(monkeypatch, 10**6)
    for scored, told in ((1000, False), (10**6, True)):
        caplog.clear()
        args = SimpleNamespace(output_dir=str(tmp_path), overwrite=False)
        job: Any = SimpleNamespace(args=args, folder=RunFolder(tmp_path), lock=None)
        open_folder(job, {"seed": 0}, scored=scored)
        job.lock.release()
        assert ("has 1 MB free, but the run writes up to 300 MB (tables of 1000000 tokens)" in caplog.text) is told


# In the middle of a run ----------------------------------------------------------------------------------------


def raising(error: Exception, begins: Callable[[], bool]) -> Callable[..., Any]:
    """A decorator of functions that write: from some moment on they raise the error."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def write(*args: Any, **kwargs: Any) -> Any:
            if begins():
                raise error
            return function(*args, **kwargs)

        return write

    return wrap


FULL, READ_ONLY = OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EROFS, "Read-only file system")
MOMENTS: dict[str, tuple[Any, str, Exception, str]] = {
    "weights": (
        safetensors.torch,
        "save_file",
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        "No space left on device",
    ),
    "optimizer": (
        torch,
        "save",
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
        "a file could not be written whole",
    ),
    "trainer state": (TrainerState, "save_to_json", FULL, "No space left on device"),
    "manifest": (checkpoints, "write_manifest", FULL, "No space left on device"),
    "name": (Path, "rename", READ_ONLY, "Read-only file system"),
}
"""Moment of saving -> what writes there, what it raises, and the reason that is told."""


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_disk_that_fills_while_a_checkpoint_is_saved(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    owner, name, error, reason = MOMENTS[moment]
    trainer = build(**SAVING)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, raising(error, lambda: trainer.state.global_step == 2)(getattr(owner, name)))
        if moment == "weights":  # where transformers looks for it
            patch.setattr("transformers.modeling_utils.safe_save_file", safetensors.torch.save_file)
        with pytest.raises(DiskFaultError) as told:
            trainer.train()
    out = tmp_path / "out"
    assert str(told.value) == (
        f"output_dir={str(out)!r} cannot be written: {reason}. checkpoint-1 is the last checkpoint; when there is "
        "room again, resume_from_checkpoint=True (--resume_from_checkpoint true) goes on from there."
    )
    assert newest_whole(out).checkpoint == out / "checkpoint-1"
    assert not (out / "checkpoint-2").exists()
    resumed = build(**SAVING)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 3
    assert not (out / ".incomplete").exists()
    assert examine(out / "checkpoint-3").fault is None
    if moment == "weights":
        undisturbed = build(max_steps=3)
        undisturbed.train()
        assert same(parameters(undisturbed), parameters(resumed))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The operating system refuses to write larger files, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("writer", ["safetensors", "torch", "json", "parquet"])
def test_what_the_libraries_raise_is_told(tmp_path: Path, writer: str) -> None:
    import pyarrow as pa

    from tokenshift.analysis.storage.parquet_files import write_parquet

    values = torch.arange(2**18, dtype=torch.float32)
    writers: dict[str, Callable[[Path], Any]] = {
        "safetensors": lambda path: safetensors.torch.save_file({"a": values}, path),
        "torch": lambda path: torch.save(values, path),
        "json": lambda path: write_whole(path, "x" * 2**20),
        "parquet": lambda path: write_parquet(path, pa.table({"a": torch.rand(2**18).numpy()})),
    }
    with files_of_at_most(2**16), pytest.raises(Exception) as told:  # noqa: PT011
        writers[writer](tmp_path / "file")
    assert disk_fault(told.value) is not None, repr(told.value)
    if writer in ("json", "parquet"):
        assert list(tmp_path.iterdir()) == []  # neither a torn file nor a partial one


def test_other_errors_are_no_disks(tmp_path: Path) -> None:
    errors = [
        FileNotFoundError(errno.ENOENT, "gone"),
        ValueError("no room in the context"),
        RuntimeError("CUDA error"),
    ]
    assert [disk_fault(error) for error in errors] == [None] * 3
    wrapped = RuntimeError("a library's")
    wrapped.__cause__ = FULL
    assert disk_fault(wrapped) == "No space left on device"


def test_a_file_keeps_its_old_contents(tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    write_whole(file, "old")

    def write_a_part() -> None:
        with whole_file(file) as partial:
            partial.write_text("ne")
            raise FULL

    with pytest.raises(OSError, match="No space"):
        write_a_part()
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["numbers.json"]


@pytest.mark.parametrize("when", ["preparation", "run"])
def test_a_recipe_says_it_in_one_line(capsys: pytest.CaptureFixture[str], when: str) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "outputs/x/units/000001.parquet")

    status = run_guarded("x.py", fail if when == "preparation" else lambda: None, fail)
    kept = (
        "Nothing was done." if when == "preparation" else "What is done is kept; the same command goes on from there."
    )
    assert status == 1
    assert capsys.readouterr().err == (
        f"x.py: The disk cannot be written: No space left on device: outputs/x/units/000001.parquet. {kept}\n"
    )


def test_a_recipe_hides_no_other_error() -> None:
    def fail(_: Any) -> None:
        raise FileNotFoundError("a user's file")

    with pytest.raises(FileNotFoundError, match="a user's file"):
        run_guarded("x.py", lambda: None, fail)


def test_a_stream_of_problems_has_no_length(problems: Dataset) -> None:
    args = SimpleNamespace(max_steps=-1)
    trainer: Any = SimpleNamespace(args=args, train_dataset=problems.to_iterable_dataset())
    assert disk_space.updates_of(trainer) == 0
