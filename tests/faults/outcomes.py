"""Checks of a run's folder after a kill, and of what two runs of the same work must have in common."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import yaml
from safetensors.torch import load_file

from tokenshift.analysis.storage.checkpoints import TRAINER_STATE, checkpoints_of
from tokenshift.analysis.storage.parquet_files import is_whole_parquet
from tokenshift.trainer.resume.examination import examine

TEMPORARY = re.compile(r"\.partial$|(^|/)\.incomplete/|\.lock$|(^|/)\.")
"""Names of files that are no results: unfinished ones, which the next run replaces, and locks."""

TIMES = re.compile(
    r"seconds|runtime|time|per_second|flos|created|date|wandb|train_loss|should_training_stop", re.IGNORECASE
)
"""Names of values that differ from one run to the next; transformers' `train_loss` is of the last start's updates."""

UNLIKE = re.compile(
    r"(^|/)(training_args\.bin|README\.md|.*\.html|log\.txt|launches\.txt|manifest\.json|.*\.png|.*\.svg)$"
)
"""Files that differ from one run to the next, or are figures, which this harness does not draw."""


def torn_files(folder: Path) -> list[str]:
    """The files of a folder, but temporary ones, that cannot be read to their end."""
    return [name for name, path in _files(folder) if not _is_whole(path)] + [
        f"{checkpoint.name}: {fault}" for checkpoint in _checkpoints(folder) if (fault := examine(checkpoint).fault)
    ]


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not TEMPORARY.search(name):
            yield name, path


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder; one that is deleted in part is none, and a resume passes it over."""
    folders = (folder, *folder.glob("cells/*"))
    checkpoints = [checkpoint for parent in folders for checkpoint in checkpoints_of(parent)]
    return [checkpoint for checkpoint in checkpoints if (checkpoint / TRAINER_STATE).exists()]


def _is_whole(path: Path) -> bool:
    try:
        if path.suffix == ".parquet":
            return is_whole_parquet(path) and pq.read_table(path).num_columns > 0
        if path.suffix in (".html", ".md", ".csv"):
            return path.stat().st_size > 0 or path.name == "README.md"  # TRL's card: each save writes it anew in place
        if path.name != "training_args.bin":
            _content(path, path.parent)
    except Exception:  # whatever reading half a file raises
        return False
    return True


def results(folder: Path) -> dict[str, Any]:
    """The results in a folder that do not depend on when it was made: name -> content."""
    return {name: _content(path, folder) for name, path in _files(folder) if not UNLIKE.search(name)}


def unlike(first: Path, second: Path) -> list[str]:
    """The names of results that are not equal in both folders, bit for bit."""
    ours, theirs = results(first), results(second)
    return sorted(name for name in ours.keys() | theirs.keys() if not _equal(ours.get(name), theirs.get(name)))


def _content(path: Path, folder: Path) -> Any:
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text().replace(str(folder), "OUT")))
    if path.suffix == ".yaml":  # a run's record: its launches differ, its settings do not
        settings = yaml.safe_load(path.read_text().replace(str(folder), "OUT"))
        return {name: value for name, value in settings.items() if name != "record"}
    if path.suffix == ".jsonl":
        return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".parquet":
        return pq.read_table(path).replace_schema_metadata(None)
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".npz":
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    if path.suffix in (".pt", ".pth"):
        return torch.load(path, weights_only=False)
    if path.suffix in (".yaml", ".md", ".csv", ".txt"):
        return path.read_text().replace(str(folder), "OUT")
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(item) for name, item in value.items() if not TIMES.search(str(name))}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def _equal(first: Any, second: Any) -> bool:
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_equal(first[name], second[name]) for name in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_equal, first, second))
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()
    if isinstance(first, float):
        return first == second or (first != first and second != second)
    return bool(first == second)
