"""The files that each kind of run leaves in its output folder, and which of them tell what a folder is."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenshift.trainer.guard.post_mortem import POST_MORTEM_DIR
from tokenshift.trainer.resume.checkpoints import STAGING_DIR

BASE_SCORE_FILE = "base_score.json"
"""Held-out score of a training's base model."""

SUMMARY_FILE = "summary.json"

LOG_HISTORY_FILE = "log_history.json"
"""All that was logged, a list of dicts as in the trainer's state."""

MODEL_DIR = "model"

RUN_ID_FILE = "wandb_run_id.txt"
"""Id of the W&B run of a training, an analysis, a comparison or a reproduction."""

TENSORBOARD_DIR = "tensorboard"
"""TensorBoard's files of an analysis, a comparison or a reproduction."""

SETTINGS_FILE = "settings.json"
"""The settings of an analysis."""

CELL_FILE = "cell.json"
"""The settings of a cell of a comparison."""

REPRODUCTION_FILE = "reproduction.json"

REPRODUCTION_SETTINGS_FILE = "reproduction_settings.json"
"""The settings of a reproduction."""

RunKind = Literal["analysis", "training", "SFT control", "comparison", "reproduction"]


@dataclass(frozen=True)
class FolderKind:
    """The files that a kind of run leaves in its output folder.

    Attributes:
        products: Glob patterns of everything that it leaves, which is what overwriting deletes.
        marks: Glob patterns of the files that no other kind of run leaves.
        marked_from_the_start: Whether a mark is the first file that a run writes, so that products without a mark are
            not the run's own.
        summary_key: A key that only this kind's `summary.json` has.
    """

    products: tuple[str, ...]
    marks: tuple[str, ...] = ()
    marked_from_the_start: bool = False
    summary_key: str | None = None


FOLDER_KINDS: Mapping[RunKind, FolderKind] = {
    "analysis": FolderKind(
        products=(
            "trajectories",
            "table",
            "units",
            "explorer.npz",
            SUMMARY_FILE,
            "figures",
            "report.html",
            "models",
            "cells",
            "paths",
            "evolution.json",
            "robustness.json",
            "robustness.md",
            "thresholds.json",
            "cross.json",
            "cross.md",
            "responses",
            "evaluation.json",
            "evaluation.md",
            "runs",
            "runs.json",
            TENSORBOARD_DIR,
            RUN_ID_FILE,
            SETTINGS_FILE,
        ),
        marks=(SETTINGS_FILE,),
        marked_from_the_start=True,
    ),
    "training": FolderKind(
        products=(
            "checkpoint-*",
            STAGING_DIR,
            MODEL_DIR,
            "completions/*",
            "wandb",
            RUN_ID_FILE,
            BASE_SCORE_FILE,
            SUMMARY_FILE,
            LOG_HISTORY_FILE,
            "training_curves.*",
            "shift",
            "dynamic_sampling.jsonl",
            POST_MORTEM_DIR,
        ),
        marks=(BASE_SCORE_FILE, LOG_HISTORY_FILE),
        summary_key="weighting",
    ),
    "SFT control": FolderKind(
        products=("checkpoint-*", STAGING_DIR, MODEL_DIR, POST_MORTEM_DIR, SUMMARY_FILE), summary_key="target_reached"
    ),
    "comparison": FolderKind(
        products=(
            *("comparison.html", "comparison.md", "comparison.csv", "comparison.json", "figures"),
            *(TENSORBOARD_DIR, RUN_ID_FILE),
        ),
        marks=(f"cells/*/{CELL_FILE}",),
        marked_from_the_start=True,
    ),
    "reproduction": FolderKind(
        products=(
            *(REPRODUCTION_FILE, "reproduction.html", "parts.json", REPRODUCTION_SETTINGS_FILE),
            *(TENSORBOARD_DIR, RUN_ID_FILE),
        ),
        marks=(REPRODUCTION_SETTINGS_FILE,),
        marked_from_the_start=True,
    ),
}
"""Every kind of run that owns an output folder. A comparison's cells are deleted one by one, each with its record."""


def delete_products(folder: Path, patterns: Iterable[str]) -> None:
    """Delete from a folder the files and folders whose names match one of the glob patterns, and nothing else."""
    for path in (path for pattern in patterns for path in folder.glob(pattern)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
