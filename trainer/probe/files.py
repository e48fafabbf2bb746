"""What the shift probes of a run leave on disk: a table a probe, and numbers that are read back from them."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tokenshift.analysis.shift.probe_summary import high_set, jaccard, shift_summary
from tokenshift.analysis.storage.provenance import read_metadata
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.token_table.schema import write_table

FIXED, OWN = "fixed", "own"
"""Kinds of trajectory: the same at every probe, and the current policy's."""

PREFIX = {FIXED: "shift/", OWN: "shift/own/"}


class ProbeFiles:
    """The folder `shift` of a run.

    Args:
        folder: its path; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def fixed_trajectories(self) -> Path:
        """Where the fixed trajectories are kept."""
        return self.folder / "fixed_trajectories.parquet"

    def table_path(self, step: int) -> Path:
        """Where the probe at an update keeps its per-token table."""
        return self.folder / f"step_{step:06d}.parquet"

    def steps(self) -> list[int]:
        """Updates at which there is a probe, in order."""
        found = (re.fullmatch(r"step_(\d+)\.parquet", path.name) for path in self.folder.glob("step_*.parquet"))
        return sorted(int(match[1]) for match in found if match)

    def forget_after(self, step: int) -> None:
        """Delete what a run that goes on from this update makes anew; at 0, everything of an earlier run.

        Raises:
            ValueError: if a file that stays is damaged.
        """
        for later in self.steps():
            if later > step or step == 0:
                self.table_path(later).unlink()
        if step == 0:
            self.fixed_trajectories.unlink(missing_ok=True)
        kept = [self.table_path(each) for each in self.steps()]
        for path in [*kept, *([self.fixed_trajectories] if self.fixed_trajectories.exists() else [])]:
            try:
                pq.read_schema(path)
            except pa.ArrowInvalid as error:
                raise ValueError(f"{path} is not a whole Parquet file; delete it, and resume again.") from error

    def read(self, step: int, kind: str) -> pa.Table:
        """The rows of one kind of trajectory at an update."""
        table = pq.read_table(self.table_path(step))
        return table.filter(pa.compute.equal(table["trajectory"], kind))

    def metrics(self, step: int) -> dict[str, float]:
        """The numbers of a probe under their logged names."""
        found: dict[str, float] = read_metadata(self.table_path(step))["metrics"]
        return found

    def add(self, step: int, tables: Mapping[str, pa.Table], metadata: Mapping[str, Any]) -> dict[str, float]:
        """Write a probe; its numbers, which compare it with the earlier ones on disk.

        Args:
            step: the update.
            tables: per-token rows by kind.
            metadata: of the table.
        """
        found: dict[str, float] = {}
        for kind, table in tables.items():
            if table.num_rows:
                found |= {PREFIX[kind] + name: value for name, value in shift_summary(table).items()}
        found |= self._overlaps(step, tables)
        record = {**metadata, "step": step, "metrics": found}
        write_table(self.table_path(step), pa.concat_tables(list(tables.values())).unify_dictionaries(), record)
        rows = [{"step": each, **self.metrics(each)} for each in self.steps()]
        write_whole(self.folder / "metrics.json", json.dumps(rows, indent=1) + "\n")
        return found

    def _overlaps(self, step: int, tables: Mapping[str, pa.Table]) -> dict[str, float]:
        if FIXED not in tables:
            return {}
        now = high_set(tables[FIXED])
        earlier = {each: high_set(self.read(each, FIXED)) for each in self.steps() if each < step}
        compared = {
            "shift/jaccard_previous": earlier[max(earlier)] if earlier else None,
            # at the start nothing has moved: the first that has a high-JS token
            "shift/jaccard_first": next((found for found in earlier.values() if found), None),
        }
        overlaps = {name: jaccard(now, other) for name, other in compared.items() if other is not None}
        return {name: value for name, value in overlaps.items() if value is not None}

    def overlaps_with_last(self) -> dict[int, float]:
        """Jaccard overlap of each probe's high-JS tokens on the fixed trajectories with the last one's, by update."""
        sets = {step: high_set(self.read(step, FIXED)) for step in self.steps()}
        last = sets[max(sets)] if sets else set()
        found = {step: jaccard(high, last) for step, high in sets.items()}
        return {step: value for step, value in found.items() if value is not None}
