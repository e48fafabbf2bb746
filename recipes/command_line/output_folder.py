"""The folder of an analysis: gone on with if its settings are the same, and nobody else's files are touched."""

import hashlib
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import PartialState
from datasets import Dataset
from filelock import FileLock, Timeout

from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.recipes.command_line.products import delete_products
from tokenshift.recipes.inputs.models import ModelSource

SETTINGS_FILE = "settings.json"
LOCK_FILE = ".lock"
WEIGHTS = ("*.safetensors", "*.bin", "config.json", "adapter_config.json", "tokenizer.json")
PARTS = "parts"
"""Key of the settings under which those of models and sets that can be added later are."""

SAMPLE, PLACES = 2**16, 1024
"""Bytes of a large file that are looked at in one place, and in how many: 64 MiB in all."""

PRODUCTS = (
    "trajectories",
    "table",
    "units",
    "explorer.npz",
    "summary.json",
    "figures",
    "report.html",
    "models",
    "cells",
    "evolution.json",
    "robustness.json",
    "robustness.md",
    "thresholds.json",
    "cross.json",
    "cross.md",
    "responses",
    "evaluation.json",
    "evaluation.md",
    SETTINGS_FILE,
)


LOOSE = ("output_dir", "overwrite", "verify_workers", "verify_timeout")
"""Arguments of every analysis on which no row depends."""


class FolderJob(Protocol):
    """What `open_folder` needs of a job.

    Attributes:
        args: of the command line, with `output_dir` and `overwrite`.
        folder: where results go.
        lock: held on the folder by the main process.
    """

    args: Any
    folder: RunFolder
    lock: FileLock | None


def open_folder(job: FolderJob, settings: dict[str, Any], parts: dict[str, Any] | None = None) -> None:
    """Make the output folder ready: go on with an earlier analysis of the same settings, refuse one of others.

    Args:
        job: the analysis; it holds the folder's lock from now on.
        settings: whatever all its rows depend on.
        parts: what some rows depend on, such as hashes of models by name. A folder may have others, which it keeps,
            but none of the same name and another value.

    Raises:
        ValueError: if the folder holds another analysis, somebody else's files, damaged files, or is in use.
    """
    folder, file = job.folder.path, job.folder.path / SETTINGS_FILE
    state = PartialState()
    plain = json.loads(json.dumps(settings | ({PARTS: parts} if parts else {}), default=str))
    overwrite = job.args.overwrite
    wrong = _wrong_with(folder, None if overwrite else plain)
    state.wait_for_everyone()  # all have looked before anything is written
    if wrong:
        raise ValueError(f"output_dir={job.args.output_dir!r} {wrong}")
    if state.is_main_process:
        job.lock = locked_folder(folder, f"output_dir={job.args.output_dir!r}", "analysis")
        if overwrite and file.exists():
            delete_products(folder, PRODUCTS)
        if parts and file.exists():
            plain[PARTS] |= json.loads(file.read_text(encoding="utf-8")).get(PARTS, {})
        write_whole(file, json.dumps(plain, indent=1, sort_keys=True) + "\n")
    state.wait_for_everyone()


def locked_folder(folder: Path, where: str, what: str) -> FileLock:
    """Make a folder if it is not there, and hold it.

    Args:
        folder: to be held.
        where: the setting that names it, for the message.
        what: holds it, in a word.

    Raises:
        ValueError: if it is in use or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise ValueError(f"{where} is in use by another {what}.") from error
    except OSError as error:
        raise ValueError(f"{where} cannot be written: {error.strerror}.") from error
    return lock


def _wrong_with(folder: Path, settings: dict[str, Any] | None) -> str | None:
    """What keeps an analysis of these settings from the folder; `settings` None where it is to be overwritten."""
    if folder.exists() and not folder.is_dir():
        return "is a file."
    file = folder / SETTINGS_FILE
    if not file.exists():
        foreign = next((path for pattern in PRODUCTS for path in folder.glob(pattern)), None)
        return f"has a {foreign.name} that no analysis made; choose another --output_dir." if foreign else None
    if settings is None:
        return None
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return f"has a damaged {SETTINGS_FILE}; delete the analysis by --overwrite true."
    there, parts = before.pop(PARTS, {}), settings.get(PARTS, {})
    pairs = {name: (before.get(name), settings.get(name)) for name in (before.keys() | settings.keys()) - {PARTS}}
    pairs |= {f"{name}_content": (there[name], parts[name]) for name in there.keys() & parts.keys()}
    for name, (old, new) in sorted(pairs.items()):
        if old != new:
            what = "other contents" if name.endswith("_content") else f"{name}={old!r}, not {new!r}"
            of = f" of {name.removesuffix('_content')}" if name.endswith("_content") else ""
            return f"holds an analysis with {what}{of}; choose another --output_dir, or --overwrite true."
    for path in [*folder.rglob("*.parquet"), *folder.rglob("*.npz")]:
        if not (zipfile.is_zipfile(path) if path.suffix == ".npz" else _is_parquet(path)):
            return f"has a damaged file, {path.relative_to(folder)}; delete it, and start again."
    return None


def _is_parquet(path: Path) -> bool:
    try:
        pq.read_schema(path)
    except (pa.ArrowInvalid, OSError):
        return False
    return True


def content_hash(paths: Iterable[Path]) -> str:
    """Of files' names, sizes and bytes; of files above 64 MiB those in 1,024 places: a training changes all."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            if size <= PLACES * SAMPLE:
                digest.update(file.read())
                continue
            for place in range(PLACES):
                file.seek(place * (size - SAMPLE) // (PLACES - 1))
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()[:16]


def model_content(source: ModelSource) -> str | None:
    """What a model's name stood for: a hash of a folder's weights and tokenizer, or the hub's commit."""
    folder = Path(source.path)
    if not folder.is_dir():
        return getattr(source.config, "_commit_hash", None)
    return content_hash(path for pattern in WEIGHTS for path in folder.glob(pattern))


def data_content(data: Dataset) -> str:
    """Hash of problems' rows."""
    rows = json.dumps(data.to_list(), sort_keys=True, default=str)
    return hashlib.sha256(rows.encode()).hexdigest()[:16]
