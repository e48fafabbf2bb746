"""Folders for new runs: empty, or temporary and gone with the run."""

import gc
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tokenshift.analysis.storage.run_folder import RunFolder, held_run_folder, new_run_folder


def processes(count: int) -> Any:
    return SimpleNamespace(num_processes=count, wait_for_everyone=lambda: None)


def test_a_temporary_folder_goes_with_the_object() -> None:
    folder = new_run_folder(None, processes(1))
    path = folder.path
    (path / "file").write_text("text")
    assert path.is_dir()
    del folder
    gc.collect()
    assert not path.exists()


def test_a_named_folder_stays_and_must_be_empty(tmp_path: Path) -> None:
    folder = new_run_folder(tmp_path / "new", processes(2))
    assert folder == RunFolder(tmp_path / "new")
    assert new_run_folder(tmp_path, processes(1)) == RunFolder(tmp_path)
    (tmp_path / "file").write_text("text")
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(ValueError, match="is not an empty folder; give another one"):
            new_run_folder(taken, processes(1))
    gc.collect()
    assert (tmp_path / "file").exists()


def test_several_processes_need_a_name() -> None:
    with pytest.raises(ValueError, match="output_dir is needed where several processes"):
        new_run_folder(None, processes(2))


def test_a_held_folder_is_taken_by_one_run(tmp_path: Path) -> None:
    with held_run_folder(tmp_path / "new", processes(1)) as folder:
        expected = f"is in use by another analysis, process {os.getpid()} on the host"
        with pytest.raises(ValueError, match=expected), held_run_folder(folder.path, processes(1)):
            pass
    with held_run_folder(folder.path, processes(1)):  # nothing was written there
        (folder.path / "file").write_text("text")
    with pytest.raises(ValueError, match="is not an empty folder"), held_run_folder(folder.path, processes(1)):
        pass
