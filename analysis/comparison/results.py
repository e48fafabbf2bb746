"""What one trained model of a comparison ended with, read from the files that its recipes left.

Shape legend: P problems of a set.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tokenshift.analysis.divergence.summary import divergence_summary
from tokenshift.analysis.token_table.columns import column

OWN, FIXED = "own", "fixed"
"""The probe's trajectories: the trained policy's, and those that the model before training sampled."""

SHIFT = ("frac_near_zero", "mean", "p50", "p90", "p95", "p99", "frac_high")
"""Of JS(base, trained), nats, and shares of tokens."""

Curve = list[tuple[int, float]]
"""Updates and values."""


@dataclass(frozen=True)
class CellResult:
    """A trained model.

    Attributes:
        variant, seed: which.
        correct: `(P,)` of each set, share of correct responses to a problem; NaN where none was judged.
        shift: the final probe's `SHIFT` by kind of trajectory; empty without a probe.
        recovery: `value`, `low`, `high` of the share of the gain that intervening gives back, `intervened`, the share
            of tokens, and `accuracy`; None where it was not measured or is not defined.
        rewards: mean training reward against updates.
        probed: accuracy of the probe's own responses against updates.
    """

    variant: str
    seed: int
    correct: dict[str, np.ndarray]
    shift: dict[str, dict[str, float]]
    recovery: dict[str, Any] | None
    rewards: Curve
    probed: Curve


def problem_accuracies(folder: Path) -> dict[str, np.ndarray]:
    """Share of correct responses `(P,)` to each problem of each set, from a folder of response files.

    Raises:
        ValueError: if there is none, or one is damaged.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise ValueError(f"{folder} has no responses.")
    names = ["set", "problem_id", "correct"]
    table = pa.concat_tables([_read(file, names) for file in files])
    found = {}
    for name in pc.unique(table["set"]).to_pylist():
        rows = table.filter(pc.equal(table["set"], name)).group_by("problem_id").aggregate([("correct", "mean")])
        rows = rows.sort_by("problem_id")
        found[name] = np.array(rows["correct_mean"].to_pylist(), dtype=float)
    return found


def _read(file: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(file, columns=columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{file} is damaged; delete its folder.") from error


def mean_accuracy(correct: dict[str, np.ndarray]) -> float:
    """Mean over the sets, each alike, of the mean over problems."""
    return float(np.mean([np.nanmean(own) for own in correct.values()]))


def final_shift(folder: Path) -> dict[str, dict[str, float]]:
    """`SHIFT` of the last probe in a run's `shift/`, by kind of trajectory; empty without one."""
    tables = sorted(folder.glob("step_*.parquet"))
    if not tables:
        return {}
    table = _read(tables[-1], ["trajectory", "js"])
    found = {}
    for kind in (OWN, FIXED):
        rows = table.filter(pc.equal(table["trajectory"], kind))
        if rows.num_rows:
            numbers = divergence_summary(column(rows, "js"))
            found[kind] = {name: numbers[name] for name in SHIFT}
    return found


def _recovery(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    summary = json.loads(file.read_text(encoding="utf-8"))
    cell = next(each for each in summary["cells"] if each["criterion"] not in ("none", "all"))
    if cell["recovery"] is None:
        return None
    shares = {name: (cell[name] or {}).get("value") for name in ("intervened", "effective", "accuracy")}
    return {**cell["recovery"], **shares}


def _curve(log: Sequence[dict[str, Any]], name: str) -> Curve:
    return [(int(each["step"]), float(each[name])) for each in log if each.get(name) is not None]


def read_cell(variant: str, seed: int, folder: Path, *, responses: Path, cross: Path, log: Path) -> CellResult:
    """Read what a cell's recipes left.

    Args:
        variant, seed: which.
        folder: of the training.
        responses: folder of the evaluation's response files.
        cross: the cross-sampling's `cross.json`, if there is one.
        log: what the training logged, a list of dicts, if there is one.
    """
    history = json.loads(log.read_text(encoding="utf-8")) if log.is_file() else []
    metrics = folder / "shift" / "metrics.json"
    probes = json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else []
    return CellResult(
        variant,
        seed,
        problem_accuracies(responses),
        final_shift(folder / "shift"),
        _recovery(cross),
        _curve(history, "reward"),
        _curve(probes, "shift/own/accuracy"),
    )
