"""The paths of what a run keeps in its folder."""

from dataclasses import dataclass
from pathlib import Path


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
