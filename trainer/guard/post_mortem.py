"""The batch of an update that was refused, saved to be looked at, and the checkpoint to go on from."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from tokenshift.analysis.storage.manifest import LEFT_BEHIND_FILE, MANIFEST_FILE, manifest_fault
from tokenshift.analysis.storage.whole_file import whole_file

POST_MORTEM_DIR = "post_mortem"
"""Folder of `output_dir` with the batches of updates that were refused."""

TEXTS = {"prompts": ("prompt_ids", "prompt_mask"), "completions": ("completion_ids", "completion_mask")}


def last_checkpoint(output_dir: str) -> Path | None:
    """The newest checkpoint of a folder with a trainer's state, and as its manifest says; None if there is none."""
    numbered = []
    for folder in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        number = re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)", folder.name)
        there = (folder / "trainer_state.json").is_file() and not (folder / LEFT_BEHIND_FILE).exists()
        if number and there:
            numbered.append((int(number[1]), folder))
    newest_first = (folder for _, folder in sorted(numbered, reverse=True))
    for folder in newest_first:
        if not (folder / MANIFEST_FILE).exists() or manifest_fault(folder) is None:
            return folder
    return None


def save_batches(trainer: Any, batches: Sequence[Mapping[str, Any]], report: Mapping[str, Any]) -> str:
    """Save the micro-steps of this rank's update as `post_mortem/update_N_rank_R.pt`.

    `torch.load(file, weights_only=True)` gives a dictionary: what `report` has, and `batches`, a list with TRL's
    tensors by name and the texts `prompts` and `completions` of each micro-step.

    Args:
        trainer: the trainer.
        batches: the loss inputs of each micro-step.
        report: what is said of them; has `update` and `rank`.

    Returns:
        What became of it, in words.
    """
    file = Path(str(trainer.args.output_dir)) / POST_MORTEM_DIR / f"update_{report['update']}_rank_{report['rank']}.pt"
    kept = []
    for batch in batches:
        tensors = {name: value.detach().cpu() for name, value in batch.items() if isinstance(value, torch.Tensor)}
        kept.append(tensors | _texts(trainer, tensors))
    try:
        with whole_file(file) as partial:
            torch.save({**report, "batches": kept}, partial)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError where a disk is full
        return f"its batch could not be saved to {file} ({' '.join(str(error).split())})"
    name = str(file) if report["rank"] == 0 and trainer.accelerator.num_processes == 1 else f"{file.parent}"
    return f"its batch is in {name}"


def _texts(trainer: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
    return {
        name: tokenizer.batch_decode([row[kept.bool()] for row, kept in zip(tensors[ids], tensors[mask], strict=True)])
        for name, (ids, mask) in TEXTS.items()
        if ids in tensors and mask in tensors
    }
