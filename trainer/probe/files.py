"""The files that the shift probes of a run leave: one table per probe, and numbers that are read back from them."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tokenshift.analysis.shift.high_tokens import high_tokens, jaccard
from tokenshift.analysis.shift.probe_summary import TOP_P_PREFIX, shift_summary
from tokenshift.analysis.storage.parquet_files import check_parquet, read_parquet
from tokenshift.analysis.storage.provenance import read_metadata
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.token_table.measure import DEFAULT_MEASURE, FULL_JS, TRUNCATED_JS
from tokenshift.analysis.token_table.schema import write_table

FIXED_KIND, OWN_KIND = "fixed", "own"
"""Kinds of trajectory: the same ones at every probe, and those that the current policy samples."""

METRIC_PREFIX = {FIXED_KIND: "shift/", OWN_KIND: "shift/own/"}
"""Prefix of the logged numbers of each kind of trajectory."""


MEASURE_PREFIX = {TRUNCATED_JS: TOP_P_PREFIX, FULL_JS: ""}
"""Prefix, after that of the kind, of numbers that depend on the measure; the publication's measure comes first."""


class ProbeFiles:
    """The folder `shift` of a run.

    Args:
        folder: its path; it is made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def fixed_trajectories(self) -> Path:
        """Path of the file of fixed trajectories."""
        return self.folder / "fixed_trajectories.parquet"

    def table_path(self, step: int) -> Path:
        """Path of the per-token table of the probe at an update."""
        return self.folder / f"step_{step:06d}.parquet"

    def steps(self) -> list[int]:
        """Updates at which there is a probe, in order."""
        matches = (re.fullmatch(r"step_(\d+)\.parquet", path.name) for path in self.folder.glob("step_*.parquet"))
        return sorted(int(match[1]) for match in matches if match)

    def forget_after(self, step: int) -> None:
        """Delete the files that a run which goes on from this update makes anew; at 0, all those of an earlier run.

        Raises:
            DamagedFileError: if a file that stays is damaged.
        """
        for later in self.steps():
            if later > step or step == 0:
                self.table_path(later).unlink()
        if step == 0:
            self.fixed_trajectories.unlink(missing_ok=True)
        kept = [self.table_path(earlier) for earlier in self.steps()]
        for path in [*kept, *([self.fixed_trajectories] if self.fixed_trajectories.exists() else [])]:
            check_parquet(path)

    def read(self, step: int, kind: str) -> pa.Table:
        """The rows of one kind of trajectory at an update."""
        table = read_parquet(self.table_path(step))
        return table.filter(pa.compute.equal(table["trajectory"], kind))

    def metrics(self, step: int) -> dict[str, float]:
        """The numbers of the probe at an update, under their logged names."""
        metrics: dict[str, float] = read_metadata(self.table_path(step))["metrics"]
        return metrics

    def summaries(self, kind: str) -> dict[int, dict[str, float]]:
        """The `shift_summary` of one kind of trajectory at each update, without the probes that had no token."""
        prefix = METRIC_PREFIX[kind]
        summaries = {}
        for step in self.steps():
            metrics = self.metrics(step).items()
            summary = {name.removeprefix(prefix): value for name, value in metrics if name.startswith(prefix)}
            if "p50" in summary:
                summaries[step] = summary
        return summaries

    def add(self, step: int, tables: Mapping[str, pa.Table], metadata: Mapping[str, Any]) -> dict[str, float]:
        """Write a probe.

        Args:
            step: the update.
            tables: per-token rows by kind of trajectory.
            metadata: what the rows come from, for the table.

        Returns:
            The numbers of the probe under their logged names; some compare it with earlier probes on disk.
        """
        metrics: dict[str, float] = {}
        for kind, table in tables.items():
            if table.num_rows:
                metrics |= {METRIC_PREFIX[kind] + name: value for name, value in shift_summary(table).items()}
        metrics |= self._overlaps(step, tables)
        record = {**metadata, "step": step, "metrics": metrics}
        write_table(self.table_path(step), pa.concat_tables(list(tables.values())).unify_dictionaries(), record)
        rows = [{"step": probed, **self.metrics(probed)} for probed in self.steps()]
        write_whole(self.folder / "metrics.json", json.dumps(rows, indent=1) + "\n")
        return metrics

    def _overlaps(self, step: int, tables: Mapping[str, pa.Table]) -> dict[str, float]:
        if FIXED_KIND not in tables:
            return {}
        earlier = {probed: self.read(probed, FIXED_KIND) for probed in self.steps() if probed < step}
        overlaps: dict[str, float | None] = {}
        for measure, prefix in MEASURE_PREFIX.items():
            now = high_tokens(tables[FIXED_KIND], measure)
            before = [high_tokens(table, measure) for table in earlier.values()]
            compared = {
                f"shift/{prefix}jaccard_previous": before[-1] if before else None,
                # at the start nothing has moved: the first that has a high-JS token
                f"shift/{prefix}jaccard_first": next((tokens for tokens in before if len(tokens)), None),
            }
            overlaps |= {name: jaccard(now, tokens) for name, tokens in compared.items() if tokens is not None}
        return {name: value for name, value in overlaps.items() if value is not None}

    def overlaps_with_last(self, measure: str = DEFAULT_MEASURE) -> dict[int, float]:
        """Jaccard index of each probe's high-JS tokens on the fixed trajectories with the last probe's, by update.

        Args:
            measure: the column that counts as the divergence, `js_top_p` or `js`.
        """
        sets = {step: high_tokens(self.read(step, FIXED_KIND), measure) for step in self.steps()}
        if not sets:
            return {}
        overlaps = {step: jaccard(tokens, sets[max(sets)]) for step, tokens in sets.items()}
        return {step: value for step, value in overlaps.items() if value is not None}
