"""The paths of what a run keeps in its folder, and folders for new runs."""

import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState


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
    path = Path(output_dir).expanduser()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"output_dir={str(output_dir)!r} is not an empty folder; give another one.")
    state.wait_for_everyone()  # every process has looked before one of them writes
    return RunFolder(path)
