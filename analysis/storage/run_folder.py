"""The paths of what a run keeps in its folder, and folders for new runs."""

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState

from tokenshift.analysis.storage.folder_lock import LOCK_FILES, FolderLock
from tokenshift.analysis.storage.main_process import on_main_process
from tokenshift.analysis.storage.user_paths import user_path


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run: table, explorer, trajectories, and units of work that are not yet joined."""

    path: Path

    @property
    def table(self) -> Path:
        return self.path / "table"

    @property
    def explorer(self) -> Path:
        return self.path / "explorer.npz"

    def trajectories(self, kind: str) -> Path:
        return self.path / "trajectories" / f"{kind}.parquet"

    def units(self, stage: str) -> Path:
        return self.path / "units" / stage

    def discard(self, stage: str) -> None:
        """Delete the units of a stage, and the folder of all stages where it is empty then."""
        shutil.rmtree(self.units(stage), ignore_errors=True)
        if self.units("").is_dir() and not any(self.units("").iterdir()):
            self.units("").rmdir()


def new_run_folder(output_dir: str | Path | None, state: PartialState) -> RunFolder:
    """An empty folder for a run whose models are loaded, and whose earlier results could be of other models.

    Args:
        output_dir: the folder, which may not exist yet; None for a temporary one, which is deleted together with the
            returned object.
        state: the processes that share the work; every process must call it.

    Raises:
        ValueError: if the folder is not empty, or several processes would each make a temporary one.
    """
    if output_dir is None:
        if state.num_processes > 1:
            raise ValueError("output_dir is needed where several processes share the work: a folder that all can see.")
        folder = RunFolder(Path(tempfile.mkdtemp(prefix="tokenshift_")))
        weakref.finalize(folder, shutil.rmtree, folder.path, ignore_errors=True)
        return folder
    path = user_path(output_dir, "output_dir")
    _refuse_used(path, output_dir)
    state.wait_for_everyone()  # every process has looked before one of them writes
    return RunFolder(path)


@contextmanager
def held_run_folder(output_dir: str | Path | None, state: PartialState) -> Iterator[RunFolder]:
    """A folder as `new_run_folder` gives it, which no other run can use until the context ends.

    Args:
        output_dir, state: As for `new_run_folder`.

    Raises:
        ValueError: if the folder is not empty, or another run uses it.
    """
    folder = new_run_folder(output_dir, state)
    if output_dir is None:
        yield folder
        return

    def take() -> FolderLock:
        lock = FolderLock(folder.path, "analysis", f"output_dir={str(output_dir)!r}")
        _refuse_used(folder.path, output_dir)  # by a run that has ended since
        return lock

    lock = on_main_process(take)
    try:
        yield folder
    finally:
        if lock is not None:
            lock.release()


def _refuse_used(path: Path, output_dir: str | Path) -> None:
    if path.exists() and (not path.is_dir() or any(file.name not in LOCK_FILES for file in path.iterdir())):
        raise ValueError(f"output_dir={str(output_dir)!r} is not an empty folder; give another one.")
