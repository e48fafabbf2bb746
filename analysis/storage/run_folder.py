"""A run's folder: its settings, and the units of work done in it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what it makes."""

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
