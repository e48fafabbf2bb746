"""The results of one trained model of a comparison, read from the files that its recipes left.

Shape legend: P problems of a set.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenshift.analysis.comparison.curves import Curve, LearningCurve, training_curve
from tokenshift.analysis.divergence.summary import divergence_summary
from tokenshift.analysis.sampling.correctness import are_graded, given_rewards
from tokenshift.analysis.storage.damage import DamagedFileError
from tokenshift.analysis.storage.json_files import read_json
from tokenshift.analysis.storage.parquet_files import open_parquet, read_parquet
from tokenshift.analysis.token_table.columns import column
from tokenshift.analysis.token_table.measure import SHIFT_MEASURES

OWN_TRAJECTORIES, FIXED_TRAJECTORIES = "own", "fixed"
"""Kinds of the probe's trajectories: sampled by the trained policy, and sampled by the model before training."""

SHIFT = ("frac_near_zero", "mean", "p50", "p90", "p95", "p99", "frac_high")
"""Numbers of the distribution of JS(base, trained) over tokens: nats, and shares of tokens for `frac_*`."""


@dataclass(frozen=True)
class CellResult:
    """The results of a trained model.

    Attributes:
        variant, seed: The variant and the seed of the training.
        correct: `(P,)` for each set by name, the share of correct responses to each problem; NaN where no response was
            judged.
        shift: The final probe's `SHIFT` numbers by kind of trajectory, each number named `measure_number`, such as
            `js_top_p_p99`; empty without a probe.
        recovery: `value`, `low`, `high` of the share of the gain in accuracy that intervening gives back; `intervened`
            and `effective`, shares of tokens; and `accuracy`. None where it was not measured or is not defined.
        rewards: Mean training reward against updates.
        probed: Accuracy of the probe's own responses against updates.
        reward: `(P,)` for each set by name, the mean reward of the responses to each problem; NaN where no response
            was judged, and empty where the files have no rewards.
        reward_range: The smallest and the largest of these rewards; None where there is none.
        graded: Whether some of them is neither 0 nor 1.
        learning: Mean reward of the training's completions against updates; None where the training logged none.
    """

    variant: str
    seed: int
    correct: dict[str, np.ndarray]
    shift: dict[str, dict[str, float]]
    recovery: dict[str, Any] | None
    rewards: Curve
    probed: Curve
    reward: dict[str, np.ndarray] = field(default_factory=dict)
    reward_range: tuple[float, float] | None = None
    graded: bool = False
    learning: LearningCurve | None = None


def problem_accuracies(folder: Path) -> dict[str, np.ndarray]:
    """The share of correct responses to each problem, from a folder of response files.

    Returns:
        `(P,)` for each set by name; NaN where no response was judged.

    Raises:
        ValueError: if the folder has no response file, or one is damaged.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise ValueError(f"{folder} has no responses.")
    return _problem_means(pa.concat_tables([_read(file, ["set", "problem_id", "correct"]) for file in files]))


def problem_rewards(folder: Path) -> tuple[dict[str, np.ndarray], list[float]]:
    """The mean reward of each problem and all different rewards, from a folder of response files.

    Returns:
        `(P,)` for each set by name, NaN where no response was judged; and the rewards that there are. Both are empty
        where the files have no rewards.

    Raises:
        ValueError: if a file is damaged.
    """
    tables = [_read(file, ["set", "problem_id", "reward"]) for file in sorted(folder.glob("*.parquet"))]
    if not tables or any("reward" not in table.column_names for table in tables):
        return {}, []
    table = pa.concat_tables(tables)
    values = given_rewards(pc.unique(table["reward"]).to_pylist())
    return (_problem_means(table), values) if values else ({}, [])


def _problem_means(table: pa.Table) -> dict[str, np.ndarray]:
    """The mean of the third column by problem, `(P,)` for each set by name."""
    value = table.column_names[2]
    means = {}
    for name in pc.unique(table["set"]).to_pylist():
        rows = table.filter(pc.equal(table["set"], name)).group_by("problem_id").aggregate([(value, "mean")])
        rows = rows.sort_by("problem_id")
        means[name] = np.array(rows[f"{value}_mean"].to_pylist(), dtype=float)
    return means


def _read(file: Path, columns: list[str]) -> pa.Table:
    try:
        there = set(open_parquet(file).schema_arrow.names)  # files that were made before have fewer
        return read_parquet(file, columns=[name for name in columns if name in there])
    except (OSError, DamagedFileError) as error:
        raise ValueError(f"{file} is damaged; delete its folder.") from error


def mean_accuracy(correct: dict[str, np.ndarray]) -> float:
    """The macro average over the sets: the mean of the sets' mean accuracies.

    Args:
        correct: `(P,)` for each set by name; NaN where no response was judged.
    """
    return float(np.mean([np.nanmean(of_set) for of_set in correct.values()]))


def final_shift(folder: Path) -> dict[str, dict[str, float]]:
    """The last probe's numbers in a run's folder `shift/`, as of `CellResult.shift`; empty without a probe.

    Older probes have no truncated JS, so that its numbers are not there.

    Raises:
        ValueError: if the probe's table is damaged.
    """
    tables = sorted(folder.glob("step_*.parquet"))
    if not tables:
        return {}
    table = _read(tables[-1], ["trajectory", *SHIFT_MEASURES])
    shifts = {}
    for kind in (OWN_TRAJECTORIES, FIXED_TRAJECTORIES):
        rows = table.filter(pc.equal(table["trajectory"], kind))
        if rows.num_rows:
            measures = [name for name in SHIFT_MEASURES if name in rows.column_names]
            numbers = {name: divergence_summary(column(rows, name)) for name in measures}
            shifts[kind] = {f"{name}_{key}": values[key] for name, values in numbers.items() for key in SHIFT}
    return shifts


def _recovery(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    summary = read_json(file, dict)
    cells = (policy for policy in summary["cells"] if policy["criterion"] not in ("none", "all"))
    cell = next(cells, None)  # there is none where the criterion cannot meet its budget
    if cell is None or cell["recovery"] is None:
        return None
    shares = {name: (cell[name] or {}).get("value") for name in ("intervened", "effective", "accuracy")}
    return {**cell["recovery"], **shares}


def _curve(log: Sequence[dict[str, Any]], name: str) -> Curve:
    return [(int(entry["step"]), float(entry[name])) for entry in log if entry.get(name) is not None]


def read_cell(
    variant: str, seed: int, folder: Path, *, responses: Path, cross: Path, log: Path, reward_func: str | None = None
) -> CellResult:
    """Read the files that the recipes of a cell left.

    Args:
        variant, seed: The variant and the seed of the cell.
        folder: The training's output folder.
        responses: The folder of the evaluation's response files.
        cross: The cross-sampling's `cross.json`; it need not exist.
        log: A JSON list of the dictionaries that the training logged; it need not exist.
        reward_func: The reward function that judges the evaluation, for the learning curve.

    Raises:
        ValueError: if there are no responses, or a file is damaged.
    """
    history = read_json(log, list) if log.is_file() else []
    metrics = folder / "shift" / "metrics.json"
    probes = read_json(metrics, list) if metrics.is_file() else []
    reward, values = problem_rewards(responses)
    return CellResult(
        variant,
        seed,
        problem_accuracies(responses),
        final_shift(folder / "shift"),
        _recovery(cross),
        _curve(history, "reward"),
        _curve(probes, "shift/own/accuracy"),
        reward,
        (min(values), max(values)) if values else None,
        are_graded(values),
        training_curve(history, reward_func),
    )
