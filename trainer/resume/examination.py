"""Looks whether a checkpoint is whole, and finds the newest of a run that is.

A checkpoint with a manifest is whole where every file is what was saved. One without (of stock TRL, of stock
transformers, or of an earlier version of this trainer) is used if each of its files can be read as far as that shows
without loading it.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list, gather_object
from transformers.trainer_callback import TrainerState

from tokenshift.analysis.storage.checkpoints import (
    LEFT_BEHIND_FILE,
    TRAINER_STATE,
    candidates_of,
    checkpoint_step,
    checkpoints_of,
    left_behind,
    newest_usable,
)
from tokenshift.analysis.storage.damage import DamagedFileError, is_whole_zip
from tokenshift.analysis.storage.json_files import parse_json, read_json
from tokenshift.analysis.storage.manifest import MANIFEST_FILE, WHOLE_BYTES, manifest_fault
from tokenshift.analysis.storage.whole_file import write_whole

logger = get_logger(__name__)

STATE_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("epoch", "total_flos", "best_metric"), (int, float)),
    **dict.fromkeys(("max_steps", "num_train_epochs", "num_input_tokens_seen", "train_batch_size"), (int, float)),
    **dict.fromkeys(("best_model_checkpoint",), (str,)),
    **dict.fromkeys(("stateful_callbacks", "trial_params"), (dict,)),
}
"""Kinds of what a trainer's state may have beside its number of updates and its logs."""

WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"),
    *("adapter_model.safetensors", "adapter_model.bin", "*/adapter_model.safetensors", "*/adapter_model.bin"),
    *("pytorch_model_fsdp*", "global_step*"),
)
"""Glob patterns of a checkpoint's weights, one of which there must be: whole, adapters, FSDP's, DeepSpeed's."""

RUN_STATE = {
    "optimizer": ("optimizer.pt", "optimizer.bin", "optimizer_*", "global_step*"),
    "learning-rate schedule": ("scheduler.pt", "global_step*"),
    "random numbers": ("rng_state*.pth",),
}
"""State without which another run goes on: name -> glob patterns, one of which there should be."""


@dataclass(frozen=True)
class Examination:
    """The result of looking at a checkpoint.

    Attributes:
        fault: what is damaged, for a message; None where the checkpoint can be used.
        remark: what could not be found out or is missing, though the checkpoint can be used; None where nothing is.
    """

    fault: str | None = None
    remark: str | None = None


@dataclass
class ResumePoint:
    """The checkpoint that a run goes on from.

    Attributes:
        checkpoint: its folder; None where there is no checkpoint to go on from.
        remarks: lines that tell the user which checkpoints were passed over, and why.
    """

    checkpoint: Path | None = None
    remarks: list[str] = field(default_factory=list)


def leave_behind(checkpoint: Path) -> list[Path]:
    """Mark the whole checkpoints of more updates beside the one that a run goes on from; it loses its own mark.

    Returns:
        The checkpoints that were marked now.
    """
    (checkpoint / LEFT_BEHIND_FILE).unlink(missing_ok=True)
    step = checkpoint_step(checkpoint)
    later = [other for other in checkpoints_of(checkpoint.parent) if checkpoint_step(other) > step >= 0]
    later = [other for other in later if left_behind(other) is None and examine(other).fault is None]
    for other in later:
        try:
            write_whole(other / LEFT_BEHIND_FILE, json.dumps({"went_on_from": checkpoint.name}) + "\n")
        except OSError as error:  # the run itself can go on
            logger.warning(f"{other.name} is of a course that the run leaves, and cannot be marked: {error.strerror}.")
    return later


def examine(checkpoint: Path) -> Examination:
    """Look whether a checkpoint is whole, without loading it."""
    if not checkpoint.is_dir():
        return Examination("there is no such folder")
    if (checkpoint / MANIFEST_FILE).exists():
        return Examination(fault=manifest_fault(checkpoint))
    fault = next(_visible_faults(checkpoint), None)
    if fault is not None:
        return Examination(fault)
    missing = [name for name, patterns in RUN_STATE.items() if not _has(checkpoint, patterns)]
    remark = f"has no {MANIFEST_FILE}, as of stock TRL or an older version, so that its files cannot be checked"
    if missing:
        remark += f", and no state of the {' and the '.join(missing)}, which begin anew"
    return Examination(remark=remark)


def _has(checkpoint: Path, patterns: tuple[str, ...]) -> bool:
    return any(path for pattern in patterns for path in checkpoint.glob(pattern))


def _visible_faults(checkpoint: Path) -> Iterator[str]:
    """The faults that show in the files of a checkpoint without a manifest."""
    try:
        wrong = _wrong_in_state(read_json(checkpoint / TRAINER_STATE, dict))
        if wrong is not None:
            yield f"{TRAINER_STATE} is no state of a training: {wrong}"
    except FileNotFoundError:
        yield f"{TRAINER_STATE} is missing"
    except (OSError, ValueError):
        yield f"{TRAINER_STATE} is damaged"
    if not _has(checkpoint, WEIGHTS):
        yield "its weights are missing"
    for path in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        name = path.relative_to(checkpoint).as_posix()
        if path.name.endswith(".index.json"):
            yield from _missing_shards(path, name)
        elif path.suffix == ".safetensors" and not _is_whole_safetensors(path):
            yield f"{name} is damaged"
        elif path.suffix in (".pt", ".pth", ".bin") and path.name != "training_args.bin":
            with path.open("rb") as file:
                start = file.read(2)
            # b"\x80\x02" is how a pickle begins, which PyTorch wrote before it wrote zip files
            zipped = start == b"PK" and is_whole_zip(path, contents=path.stat().st_size <= WHOLE_BYTES)
            if not zipped and start != b"\x80\x02":
                yield f"{name} is damaged"


def _wrong_in_state(state: dict[str, Any]) -> str | None:
    """The reason why the contents of a `trainer_state.json` are no state that transformers wrote; None if they are."""
    known = {field.name for field in fields(TrainerState)}
    for name in sorted(state.keys() - known):
        return f"this version of transformers does not know its {name}"
    step, history = state.get("global_step"), state.get("log_history")
    if type(step) is not int or step < 0:
        return "it does not say how many updates were made (global_step)" if step is None else f"global_step={step!r}"
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        return "it has no log_history"
    for name, kinds in STATE_KINDS.items():
        value = state.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
            return f"{name}={value!r}"
    return None


def _missing_shards(index: Path, name: str) -> Iterator[str]:
    try:
        shards = sorted(set(read_json(index)["weight_map"].values()))
        yield from (f"{shard} is missing" for shard in shards if not (index.parent / shard).is_file())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        yield f"{name} is damaged"


def _is_whole_safetensors(path: Path) -> bool:
    """Whether the file is as long as its header says."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            size = path.stat().st_size
            if length > size:
                return False
            header = parse_json(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return bool(8 + length + max(ends, default=0) == size)
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError, IndexError):
        return False


def examine_everywhere(checkpoint: Path) -> Examination:
    """Look at a checkpoint on every machine, whose disks may hold different parts of it; every process must call it.

    Returns:
        The same on every process.
    """
    state = PartialState()
    mine = Examination()
    if state.is_main_process:
        mine = examine(checkpoint)
    elif state.is_local_main_process and (checkpoint / MANIFEST_FILE).exists():  # the part on this machine's disk
        mine = Examination(fault=manifest_fault(checkpoint))
    everyone: list[Examination] = gather_object([mine])
    return next((examination for examination in everyone if examination.fault is not None), everyone[0])


def newest_whole(run_dir: Path) -> ResumePoint:
    """Find the newest checkpoint of a run that is whole, and of the course that the run took last.

    Every process must call it, and all get the same.

    Args:
        run_dir: the run's folder, which need not exist.

    Raises:
        DamagedFileError: if there are checkpoints, and none of them is whole.
    """
    (candidates,) = broadcast_object_list([candidates_of(run_dir)])
    examinations: dict[Path, Examination] = {}

    def fault(checkpoint: Path) -> str | None:
        examinations[checkpoint] = examine_everywhere(checkpoint)
        return examinations[checkpoint].fault

    checkpoint, passed_over = newest_usable(candidates, fault)
    remarks = [f"{other} is passed over: {reason}." for other, reason in passed_over]
    if checkpoint is None:
        if candidates:
            raise DamagedFileError(
                f"No checkpoint in {run_dir} can be used. {' '.join(remarks)} Bring one back from a copy, or begin "
                "the run again."
            )
        return ResumePoint()
    if remarks:
        remarks.append(f"The run goes on from {checkpoint.name}.")
    if (remark := examinations[checkpoint].remark) is not None:
        remarks.append(f"{checkpoint} {remark}.")
    return ResumePoint(checkpoint, remarks)


def last_whole(run_dir: Path) -> Path | None:
    """The newest whole checkpoint of a run's course as this process sees it; None where there is none.

    It asks no other process, and a checkpoint that cannot be read counts as damaged: it is for the message of a run
    that ends, when other processes may have ended already, or the disk is at fault.
    """

    def fault(checkpoint: Path) -> str | None:
        try:
            return examine(checkpoint).fault
        except OSError as error:
            return f"it cannot be read: {error.strerror}"

    return newest_usable(candidates_of(run_dir), fault)[0]


def named_checkpoint(checkpoint: Path) -> ResumePoint:
    """Look at the checkpoint that the user names; every process must call it, and all get the same.

    Raises:
        DamagedFileError: if it is not whole; the message names the newest whole one beside it.
    """
    examination = examine_everywhere(checkpoint)
    if examination.fault is None:
        return ResumePoint(checkpoint, [] if examination.remark is None else [f"{checkpoint} {examination.remark}."])
    try:
        other = newest_whole(checkpoint.parent).checkpoint
    except DamagedFileError:
        other = None
    advice = "begin the run again" if other is None else f"go on from {other}, which is whole"
    raise DamagedFileError(
        f"resume_from_checkpoint={str(checkpoint)!r} is not used: {examination.fault}. Bring it back from a copy, or "
        f"{advice}."
    )
