"""The analysis recipes on one process and on two: their runs, and how far their results are apart."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from distributed.jobs import Job, run_jobs
from faults.outcomes import results
from helpers.pocket_models import save_moved

ANALYSIS_TOLERANCE = 1e-6
"""The largest difference that is allowed between results on one process and on two."""

MOVED = {"near": (10, 0.03), "far": (20, 0.1)}
"""Models: name -> the number of the checkpoint that it is, and how far it is moved from pocket's base."""

TIED = ("problem_id", "sample_id", "position")
"""Columns that order the rows of a table."""

# small batches, so that each process has some
QUICK = ("--size", "7", "--batch_size", "4", "--max_new_tokens", "40", "--resamples", "20", "--verify_workers", "1")

SCORED = (*QUICK, "--batch_tokens", "150")

ANALYSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "shift": ("analyze_shift", (*SCORED, "--samples", "2", "--report_responses", "3", "--rl_model", "{far}")),
    "evaluation": (
        "evaluate",
        (*QUICK, "--samples", "3", "--ks", "1", "3", "--model", "{far}", "--against", "pocket"),
    ),
    "cross-sampling": (
        "cross_sample",
        (*QUICK, "--criteria", "js", "random", "--pilot", "5", "--budgets", "0.1", "0.3", "--rl_model", "{far}"),
    ),
    "evolution": ("analyze_evolution", (*SCORED, "--checkpoints", "{near}", "{far}")),
    "robustness": (
        "shift_robustness",
        (*SCORED, "--kinds", "rl", "mixed", "--temperatures", "1.2", "--top_ps", "0.7", "0.9", "--rl_model", "{far}"),
    ),
}
"""Name -> the recipe and its arguments, with two models moved from pocket's base."""


def analysis(name: str, engine: str, folder: Path, models: dict[str, Path]) -> Job:
    """An analysis' run.

    Args:
        name: One of `ANALYSES`.
        engine: `one` or `ddp`.
        folder: The folder of all runs.
        models: The folders of the models `near` and `far`.
    """
    recipe, words = ANALYSES[name]
    places = {model: str(path) for model, path in models.items()}
    return Job(recipe, str(folder / f"{name}-{engine}"), tuple(word.format(**places) for word in words))


def run_analyses(folder: Path, names: Sequence[str] = tuple(ANALYSES)) -> list[tuple[str, float, str]]:
    """Run analyses on one process and on two.

    Args:
        folder: A folder for what they leave.
        names: Some of `ANALYSES`.

    Returns:
        For each its name, the largest difference, and the file that has it or why there is none.
    """
    models = {name: save_moved(folder / f"checkpoint-{step}", scale) for name, (step, scale) in MOVED.items()}
    jobs = {engine: [analysis(name, engine, folder, models) for name in names] for engine in ("one", "ddp")}
    for engine, listed in jobs.items():
        run_jobs(engine, listed, folder)
    outcomes = []
    for name, *runs in zip(names, *jobs.values(), strict=True):
        failures = [failure for run in runs if (failure := run.failure())]
        figure, file = (
            (math.inf, failures[0]) if failures else analysis_difference(*(Path(run.folder) for run in runs))
        )
        outcomes.append((name, figure, file))
    return outcomes


def analysis_difference(expected: Path, found: Path) -> tuple[float, str]:
    """The largest absolute difference between the results in two folders, and the file that has it.

    Text, whole numbers and names must be the same, else the difference is infinite. A table's rows may lie in several
    files, one per process, in any order.
    """
    ours, theirs = (_by_table(results(folder)) for folder in (expected, found))
    if ours.keys() != theirs.keys():
        return math.inf, ", ".join(sorted(ours.keys() ^ theirs.keys()))
    return max((_difference(ours[name], theirs[name]), name) for name in ours)


def _by_table(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a folder, with the parts of each table put together and its rows in order."""
    parts: dict[str, list[pa.Table]] = {}
    others = {}
    for name, value in content.items():
        if isinstance(value, pa.Table):
            folder, _, file = name.rpartition("/")
            parts.setdefault(folder if folder.endswith("table") else f"{folder}/{file}", []).append(value)
        else:
            others[name] = value
    tables = {name: pa.concat_tables(found) for name, found in parts.items()}
    return others | {
        name: table.sort_by([(column, "ascending") for column in TIED if column in table.column_names]).to_pydict()
        for name, table in tables.items()
    }


def _difference(one: Any, other: Any) -> float:
    """The largest difference between numbers that lie alike in two contents."""
    if isinstance(one, float) and isinstance(other, float):
        return 0.0 if one == other or (math.isnan(one) and math.isnan(other)) else abs(one - other)
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((_difference(one[name], other[name]) for name in one), default=0.0)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return max(map(_difference, one, other), default=0.0)
    if hasattr(one, "dtype") and hasattr(other, "dtype") and one.shape == other.shape:
        return _difference(one.tolist(), other.tolist())
    return 0.0 if type(one) is type(other) and one == other else math.inf
