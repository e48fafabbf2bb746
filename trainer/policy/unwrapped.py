"""A policy unwrapped for generation, whose gradient checkpointing is afterwards as it was, by any TRL."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trl.models import unwrap_model_for_generation

KEYWORD = "gradient_checkpointing_kwargs"
"""Parameter by which TRL, from 1.16 on, turns checkpointing on again as it was."""


@contextmanager
def unwrapped_for_generation(trainer: Any) -> Iterator[Any]:
    """The trainer's model, to generate with; TRL turns gradient checkpointing off inside, and on again afterwards.

    TRL before 1.16 turns it on again with transformers' defaults, which can be another kind of checkpointing than the
    training's and gives other bits. There it is turned on once more, as the training has it.

    Args:
        trainer: any trainer of TRL's.
    """
    kwargs = trainer.args.gradient_checkpointing_kwargs
    if KEYWORD in inspect.signature(unwrap_model_for_generation).parameters:
        with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator, **{KEYWORD: kwargs}) as model:
            yield model
        return
    policy = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    checkpoints = policy.is_gradient_checkpointing
    with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model:
        yield model
    if checkpoints:
        policy.gradient_checkpointing_enable(kwargs)
