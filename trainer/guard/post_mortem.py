"""Saves the batch of an update that was refused, to be looked at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tokenshift.analysis.storage.whole_file import whole_file

POST_MORTEM_DIR = "post_mortem"
"""Folder of `output_dir` with the batches of updates that were refused."""

TEXTS = {"prompts": ("prompt_ids", "prompt_mask"), "completions": ("completion_ids", "completion_mask")}


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
