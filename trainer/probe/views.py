"""The views of a probe: figures on disk, and the same with histograms and a table of moved tokens in W&B."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import wandb

from tokenshift.analysis.figures.kit import save_figure
from tokenshift.analysis.shift.figures.probe import probe_figures
from tokenshift.analysis.shift.most_moved import MovedToken, most_moved
from tokenshift.analysis.storage.json_files import read_json
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.token_table.columns import column
from tokenshift.trainer.probe.files import MEASURE_PREFIX, METRIC_PREFIX, ProbeFiles
from tokenshift.trainer.tracking.metrics import position_charts

LOG10_FLOOR = -8.0
"""Lower end of the histogram of log10 JS; smaller JS count in its first bin."""


def draw_probe_figures(
    files: ProbeFiles, kind: str, table: pa.Table, formats: Sequence[str]
) -> dict[str, tuple[Path, str]]:
    """Draw the figures of the last probe; they replace those of the probe before.

    Args:
        files: the probes of the run.
        kind: the kind of trajectory.
        table: the last probe's rows of that kind, at least one.
        formats: file formats, such as `png`.

    Returns:
        The path and the caption of each figure, by name.
    """
    summaries = files.summaries(kind)
    figures = probe_figures(table, kind, files.steps()[-1], summaries)
    folder = files.folder / "figures"
    return {
        name: (save_figure(figure, folder / f"{kind}_{name}", formats), caption)
        for name, (figure, caption) in figures.items()
    }


class WandbViews:
    """Logs probes to the W&B run that is open, each once for a run, also when a resumed run makes it again.

    Args:
        folder: the folder in which it keeps a note of what W&B has.
    """

    def __init__(self, folder: Path) -> None:
        self._note = folder / "wandb_logged.json"

    def log_probe(
        self,
        step: int,
        metrics: Mapping[str, float],
        tables: Mapping[str, pa.Table],
        figures: Mapping[str, Mapping[str, tuple[Path, str]]],
        decode: Callable[[int], str],
    ) -> None:
        """Log numbers, histograms of log10 JS, most moved tokens and figures, against `shift/step`.

        Args:
            step: the update.
            metrics: the probe's numbers by logged name.
            tables: per-token rows by kind of trajectory.
            figures: PNG files, each with its caption, by kind and name.
            decode: gives the text of a token id.
        """
        views: dict[str, Any] = {}
        for kind, table in tables.items():
            if not table.num_rows:
                continue
            for measure, prefix in MEASURE_PREFIX.items():  # the publication's measure comes first
                log_js = np.log10(np.maximum(column(table, measure), 10**LOG10_FLOOR))
                views[f"{METRIC_PREFIX[kind]}{prefix}log10_js"] = wandb.Histogram(
                    np_histogram=np.histogram(log_js, 64, (LOG10_FLOOR, 0))
                )
                names: list[str | int] = [field.name for field in fields(MovedToken)]
                rows = [list(asdict(token).values()) for token in most_moved(table, decode, measure=measure)]
                views[f"{METRIC_PREFIX[kind]}{prefix}most_moved"] = wandb.Table(columns=names, data=rows)
            for name, (path, caption) in figures[kind].items():
                views[f"{METRIC_PREFIX[kind]}{name}"] = wandb.Image(str(path), caption=caption)
        self._log_once(f"probe {step}", step, dict(metrics), views)

    def log_overlaps(self, name: str, overlaps: Mapping[int, float]) -> None:
        """Log overlaps with the last probe as `shift/NAME`, each against the `shift/step` of its probe."""
        for step, value in overlaps.items():
            self._log_once(f"{name} {step}", step, {f"shift/{name}": value}, {})

    def _noted(self) -> dict[str, Any]:
        """The note of what was logged before; empty where there is none or it is damaged: then all is logged again."""
        try:
            noted: dict[str, Any] = read_json(self._note, dict)
        except (OSError, ValueError):
            return {}
        return noted

    def _log_once(self, key: str, step: int, metrics: dict[str, float], views: dict[str, Any]) -> None:
        run = wandb.run
        if run is None:
            return
        logged = self._noted()
        if logged.get("run") != run.id:
            logged = {"run": run.id}
        if logged.get(key) == metrics:
            return
        run.define_metric("shift/step", hidden=True)
        run.define_metric("shift/*", step_metric="shift/step")
        run.log({"shift/step": step, **position_charts(metrics), **views})
        logged[key] = metrics
        write_whole(self._note, json.dumps(logged))
