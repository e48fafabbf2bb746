"""How much a training will write, compared with the free space before it begins."""

import math
from pathlib import Path
from typing import Any

from accelerate.logging import get_logger
from transformers import Trainer
from transformers.trainer_utils import SaveStrategy

from tokenshift.analysis.storage.checkpoints import checkpoints_of
from tokenshift.analysis.storage.disk import SCORED_TOKEN_BYTES, as_bytes, check_room

logger = get_logger(__name__)

MOMENTS = 2
"""Numbers that the optimizer keeps of each trained weight, as Adam does."""


def check_training_room(trainer: Trainer, run_dir: Path, freed: int = 0) -> None:
    """Refuse a training whose checkpoints will not fit on the disk, and warn where the probe's tables may not.

    Args:
        trainer: it has its model, and has not begun to train.
        run_dir: where it writes.
        freed: bytes that will be deleted there before it begins.

    Raises:
        DiskFullError: if there is too little room; the message has both numbers.
    """
    checkpoint, model = checkpoint_bytes(trainer)
    kept, there = kept_checkpoints(trainer), 0 if freed else len(checkpoints_of(run_dir))
    missing, probes = max(0, kept - there), probe_bytes(trainer)
    needed = missing * checkpoint + model if kept else 0
    parts = [f"{missing} checkpoints of {as_bytes(checkpoint)}", f"a model of {as_bytes(model)}"] if kept else []
    if probes:
        parts.append(f"probe tables of at most {as_bytes(probes)}")
    advice = "lower save_total_limit or save less often" if kept else "probe less often"
    where = f"output_dir={trainer.args.output_dir!r}"
    if warning := check_room(run_dir, needed, ", ".join(parts), where, advice, freed=freed, at_most=probes):
        logger.warning(warning)


def checkpoint_bytes(trainer: Trainer) -> tuple[int, int]:
    """The bytes of a checkpoint and of the model in it, about.

    Adapters alone are saved of a PEFT model.
    """
    saved = trained = 0
    adapters = hasattr(trainer.model, "peft_config")
    model: Any = trainer.model
    for parameter in model.parameters():
        size = getattr(parameter, "ds_numel", parameter.numel()) * parameter.element_size()  # ZeRO-3 shards it
        trained += size if parameter.requires_grad else 0
        saved += size if parameter.requires_grad or not adapters else 0
    return saved + (0 if trainer.args.save_only_model else MOMENTS * trained), saved


def updates_of(trainer: Trainer) -> int:
    """The number of updates of the whole run, about where epochs are counted."""
    args: Any = trainer.args
    if args.max_steps > 0:
        return int(args.max_steps)
    try:
        rows = len(trainer.train_dataset)  # type: ignore[arg-type]  # a stream has no length
    except TypeError:
        return 0
    rows *= getattr(trainer, "num_generations", 1) * getattr(trainer, "num_iterations", 1)
    batch = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
    return math.ceil(args.num_train_epochs * rows / batch)


def kept_checkpoints(trainer: Trainer) -> int:
    """The most checkpoints that the run has on the disk at once: a new one is written before an old one goes."""
    args: Any = trainer.args
    if args.save_strategy == SaveStrategy.NO:
        return 0
    updates = updates_of(trainer)
    if args.save_strategy == SaveStrategy.EPOCH:
        count = math.ceil(args.num_train_epochs)
    else:
        every = args.save_steps if args.save_steps >= 1 else max(1, math.ceil(args.save_steps * updates))
        count = math.ceil(updates / every)
    return min(count, args.save_total_limit + 1) if args.save_total_limit else count


def probe_bytes(trainer: Trainer) -> int:
    """The bytes of the probe's tables, at most about; 0 without a probe."""
    args: Any = trainer.args
    every = getattr(args, "probe_steps", None)
    if every is None:
        return 0
    updates = updates_of(trainer)
    probes = 2 + (updates // every if every else 0)
    tokens = 2 * int(args.probe_size) * int(args.max_completion_length or 1)  # fixed ones, and the policy's own
    return int(probes * tokens * SCORED_TOKEN_BYTES)
