"""A probe's views: four figures on disk, and the same with histograms and a table of moved tokens in W&B."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import wandb

from tokenshift.analysis.figures.kit import save_figure
from tokenshift.analysis.shift.figures import probe as shift_figures
from tokenshift.analysis.shift.most_moved import MovedToken, most_moved
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.token_table.columns import column
from tokenshift.trainer.probe.files import PREFIX, ProbeFiles

LOG10_FLOOR = -8.0


def draw(files: ProbeFiles, kind: str, table: pa.Table, formats: Sequence[str]) -> dict[str, Path]:
    """The four figures of the last probe's rows of one kind, by name; they replace those of the probe before."""
    steps = files.steps()
    summaries = {}
    for step in steps:
        found = files.metrics(step)
        own = {
            name.removeprefix(PREFIX[kind]): value for name, value in found.items() if name.startswith(PREFIX[kind])
        }
        if "p50" in own:
            summaries[step] = own
    title = f"{kind} trajectories, update {steps[-1]}"
    drawn = {
        "js_histogram": shift_figures.js_histogram(table, title),
        "position_profile": shift_figures.position_profile(table, title),
        "js_entropy_map": shift_figures.js_entropy_map(table, title),
        "percentiles": shift_figures.percentiles_over_steps(
            list(summaries), list(summaries.values()), f"{kind} trajectories"
        ),
    }
    folder = files.folder / "figures"
    return {name: save_figure(figure, folder / f"{kind}_{name}", formats) for name, figure in drawn.items()}


class WandbViews:
    """Logs probes to the W&B run that is open, each once for a run, also when a resumed run makes it again.

    Args:
        folder: where it keeps a note of what W&B has.
    """

    def __init__(self, folder: Path) -> None:
        self._note = folder / "wandb_logged.json"

    def log_probe(
        self,
        step: int,
        metrics: Mapping[str, float],
        tables: Mapping[str, pa.Table],
        figures: Mapping[str, Mapping[str, Path]],
        decode: Callable[[int], str],
    ) -> None:
        """Numbers, histograms of log10 JS, most moved tokens and figures, against `shift/step`.

        Args:
            step: the update.
            metrics: by logged name.
            tables: per-token rows by kind.
            figures: PNG files by kind and name.
            decode: a token id's text.
        """
        views: dict[str, Any] = {}
        for kind, table in tables.items():
            if not table.num_rows:
                continue
            log_js = np.log10(np.maximum(column(table, "js"), 10**LOG10_FLOOR))
            views[f"{PREFIX[kind]}log10_js"] = wandb.Histogram(np_histogram=np.histogram(log_js, 64, (LOG10_FLOOR, 0)))
            names: list[str | int] = [each.name for each in fields(MovedToken)]
            rows = [list(asdict(token).values()) for token in most_moved(table, decode)]
            views[f"{PREFIX[kind]}most_moved"] = wandb.Table(columns=names, data=rows)
            views |= {f"{PREFIX[kind]}{name}": wandb.Image(str(path)) for name, path in figures[kind].items()}
        self._log_once(f"probe {step}", step, dict(metrics), views)

    def log_overlaps(self, overlaps: Mapping[int, float]) -> None:
        """The overlaps with the last probe, each against its own `shift/step`."""
        for step, value in overlaps.items():
            self._log_once(f"jaccard_last {step}", step, {"shift/jaccard_last": value}, {})

    def _log_once(self, key: str, step: int, metrics: dict[str, float], views: dict[str, Any]) -> None:
        run = wandb.run
        if run is None:
            return
        logged = json.loads(self._note.read_text()) if self._note.is_file() else {}
        if logged.get("run") != run.id:
            logged = {"run": run.id}
        if logged.get(key) == metrics:
            return
        run.define_metric("shift/step", hidden=True)
        run.define_metric("shift/*", step_metric="shift/step")
        run.log({"shift/step": step, **metrics, **views})
        logged[key] = metrics
        write_whole(self._note, json.dumps(logged))
