"""Output folders: every run locks its folder, refuses another run's files and continues an earlier run of its kind."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from accelerate import PartialState
from accelerate.logging import get_logger

from tokenshift.analysis.secrets import hide_in_text
from tokenshift.analysis.storage.damage import is_whole_zip
from tokenshift.analysis.storage.disk import as_bytes, check_room, folder_bytes, tables_bytes
from tokenshift.analysis.storage.folder_lock import LOCK_FILE, FolderLock
from tokenshift.analysis.storage.json_files import read_json
from tokenshift.analysis.storage.main_process import on_main_process
from tokenshift.analysis.storage.parquet_files import is_whole_parquet
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.recipes.command_line.dry_run import PLAN_OPTIONS
from tokenshift.recipes.command_line.earlier_runs import check_settings_file
from tokenshift.recipes.command_line.products import (
    FOLDER_KINDS,
    SETTINGS_FILE,
    SUMMARY_FILE,
    RunKind,
    delete_products,
)
from tokenshift.recipes.command_line.run_record import record_launch
from tokenshift.recipes.inputs.verification_arguments import VERIFICATION_LIMITS

logger = get_logger(__name__)

UNWRITTEN = {"mixed_criterion": "js"}
"""The values of settings before they could be set, which older analyses do not name."""

CONTENT_PARTS = "parts"
"""Key of the settings under which those of models and sets that can be added later are."""

UNRECORDED_ARGUMENTS = (
    "output_dir",
    "overwrite",
    "report_to",
    *VERIFICATION_LIMITS,
    "ddp_timeout",
    "trust_remote_code",
    # how models lie in memory
    *("device_map", "offload_folder", "one_model_at_a_time"),
    # how vLLM runs
    *("vllm_tensor_parallel_size", "vllm_gpu_memory_utilization", "vllm_max_model_length", "vllm_runner"),
    "vllm_enforce_eager",
    # a plan is no run
    *PLAN_OPTIONS,
)
"""Arguments of every analysis on which no row depends, and which its settings therefore leave out."""


@dataclass(kw_only=True)
class FolderOwner:
    """A job that owns its output folder. `run_guarded` calls `close` when the job ends, however it ends.

    Attributes:
        lock: The lock on the folder. The main process holds it from the job's preparation on; other processes have
            none.
    """

    lock: FolderLock | None = field(default=None, repr=False, compare=False)

    def close(self) -> None:
        """Let other runs use the folder; the end of the process does so too."""
        if self.lock is not None:
            self.lock.release()


class AnalysisJob(Protocol):
    """The part of an analysis that `open_folder` needs.

    Attributes:
        args: Its arguments, with `output_dir` and `overwrite`.
        folder: Where results go.
        lock: Set by `open_folder`.
    """

    args: Any
    folder: RunFolder
    lock: FolderLock | None


def check_folder(folder: Path, kind: RunKind, where: str) -> None:
    """Refuse an output folder that cannot be used, as `take_folder` does, and leave it as it is.

    To be called before anything slow is done; every process of a run must call it.

    Args:
        folder: The output folder; it need not exist.
        kind: The kind of run that wants it.
        where: The setting that names the folder, for messages.

    Raises:
        ValueError: On every process, as `take_folder` does.
    """

    def look() -> None:
        _refuse_foreign(folder, kind, where)
        if (folder / LOCK_FILE).exists():
            FolderLock(folder, kind, where).release()

    on_main_process(look)


def take_folder(
    folder: Path, kind: RunKind, where: str, check: Callable[[], None] = lambda: None
) -> FolderLock | None:
    """Take an output folder, which is made if it is not there; every process of a run must call this.

    The main process looks at the folder, and all processes learn what it found.

    Args:
        folder: The output folder.
        kind: The kind of run that takes it.
        where: The setting that names the folder, for messages.
        check: Called by the main process once it holds the lock, when no other run can touch the folder any more; it
            raises ValueError where the folder cannot be used after all.

    Returns:
        The lock, on the main process; None on others.

    Raises:
        ValueError: On every process, if the folder is a file, holds files that this kind of run did not make, is in
            use, or cannot be written, or as `check` does.
    """

    def take() -> FolderLock:
        _refuse_foreign(folder, kind, where)
        lock = FolderLock(folder, kind, where)
        try:
            check()
        except BaseException:
            lock.release()
            raise
        return lock

    return on_main_process(take)


def _refuse_foreign(folder: Path, kind: RunKind, where: str) -> None:
    """Refuse a folder that holds the files of another kind of run, or of something else, and none of this kind.

    Raises:
        ValueError: If the folder is a file, or has such files.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{where} is a file.")
    if _mark_of(folder, kind) is not None:
        return
    patterns = FOLDER_KINDS[kind].products if FOLDER_KINDS[kind].marked_from_the_start else ()
    foreign = next((path for pattern in patterns for path in folder.glob(pattern)), None)
    if foreign is None:
        marks = (_mark_of(folder, other) for other in FOLDER_KINDS if other != kind)
        foreign = next((mark for mark in marks if mark is not None), None)
    if foreign is not None:
        name = foreign.relative_to(folder)
        raise ValueError(f"{where} has a {name} that no {kind} made; choose another --output_dir.")


def _mark_of(folder: Path, kind: RunKind) -> Path | None:
    """A file that shows that a run of this kind made the folder."""
    for pattern in FOLDER_KINDS[kind].marks:
        for path in folder.glob(pattern):
            return path
    key, summary = FOLDER_KINDS[kind].summary_key, folder / SUMMARY_FILE
    if key is not None and summary.is_file():
        try:
            content = read_json(summary)
        except ValueError:
            return None
        if isinstance(content, dict) and key in content:
            return summary
    return None


def bytes_to_delete(folder: Path, kind: RunKind) -> int:
    """The bytes that `start_over` deletes."""
    return sum(folder_bytes(path) for pattern in FOLDER_KINDS[kind].products for path in folder.glob(pattern))


def start_over(folder: Path, kind: RunKind) -> None:
    """Delete what an earlier run of this kind left in its folder; every process of a run must call this."""
    if PartialState().is_main_process:
        delete_products(folder, FOLDER_KINDS[kind].products)
    PartialState().wait_for_everyone()


def open_folder(
    job: AnalysisJob,
    settings: dict[str, Any],
    parts: dict[str, Any] | None = None,
    *,
    sampled: int = 0,
    scored: int = 0,
    states: int = 0,
) -> None:
    """Take an analysis' output folder: continue an earlier analysis of the same settings, refuse one of others.

    Args:
        job: The analysis; it holds the folder's lock from now on.
        settings: Whatever all its rows depend on.
        parts: What some rows depend on, such as hashes of models by name. A folder may have others, which it keeps,
            but none of the same name and another value.
        sampled, scored: Tokens that the analysis samples, and that it scores, at most; the user is told where there
            may be too little room for them.
        states: Bytes of hidden states that wait on the disk meanwhile, at most, of which the user is told likewise.

    Raises:
        ValueError: If the folder holds another analysis, somebody else's files, or damaged files, or if it is in use.
    """
    folder, file = job.folder.path, job.folder.path / SETTINGS_FILE
    where = f"output_dir={job.args.output_dir!r}"
    plain = json.loads(hide_in_text(json.dumps(settings | ({CONTENT_PARTS: parts} if parts else {}), default=str)))

    def continue_or_begin() -> None:
        goes_on = file.exists() and not job.args.overwrite
        if job.args.overwrite and file.exists():
            delete_products(folder, FOLDER_KINDS["analysis"].products)
        if file.exists():
            check_settings_file(job.args.output_dir, overwrite=False)
            if difference := _difference(folder, plain):
                raise ValueError(f"{where} {difference}")
            if parts:
                plain[CONTENT_PARTS] |= read_json(file, dict).get(CONTENT_PARTS, {})
        write_whole(file, json.dumps(plain, indent=1, sort_keys=True) + "\n")
        contents = {name: value for name, value in settings.items() if name.endswith("_content")} | (parts or {})
        record_launch(folder, (job.args,), goes_on=goes_on, contents=contents)

    job.lock = take_folder(folder, "analysis", where, continue_or_begin)
    if job.lock is not None:
        at_most = states + tables_bytes(sampled, scored)
        tokens = f"tables of {sampled + scored} tokens"
        if states:
            tokens += f", hidden states of {as_bytes(states)}"
        if warning := check_room(folder, 0, tokens, where, "sample fewer or shorter responses", at_most=at_most):
            logger.warning(warning)


def _difference(folder: Path, settings: dict[str, Any]) -> str | None:
    """The difference that keeps an analysis of these settings from continuing the one in the folder, or None."""
    before = read_json(folder / SETTINGS_FILE, dict)
    parts_before, parts = before.pop(CONTENT_PARTS, {}), settings.get(CONTENT_PARTS, {})
    before = {name: value for name, value in UNWRITTEN.items() if name in settings} | before
    pairs = {
        name: (before.get(name), settings.get(name)) for name in (before.keys() | settings.keys()) - {CONTENT_PARTS}
    }
    pairs |= {f"{name}_content": (parts_before[name], parts[name]) for name in parts_before.keys() & parts.keys()}
    for name, (old, new) in sorted(pairs.items()):
        if old != new:
            other = "which is not given now" if new is None else f"not {new!r}"
            what = "other contents" if name.endswith("_content") else f"{name}={old!r}, {other}"
            of = f" of {name.removesuffix('_content')}" if name.endswith("_content") else ""
            return f"holds an analysis with {what}{of}; choose another --output_dir, or --overwrite true."
    for path in [*folder.rglob("*.parquet"), *folder.rglob("*.npz")]:
        if not (is_whole_zip(path) if path.suffix == ".npz" else is_whole_parquet(path)):
            return f"has a damaged file, {path.relative_to(folder)}; delete it, and start again."
    return None
