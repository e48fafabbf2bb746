"""How many completions a generation makes, by TRL's rule, and whether they are whole groups of enough prompts.

Nothing heavy is imported, so that it can be asked before torch and TRL are.
"""

from typing import Any


def generation_batch(values: Any, processes: int) -> int:
    """Completions of a generation over all processes, as `GRPOConfig.__post_init__` sets `generation_batch_size`.

    Args:
        values: the values of all options, as attributes.
        processes: processes of the training.

    Raises:
        ValueError: if they are no whole batches of the processes, or no whole groups of `num_generations`.
    """
    step = values.per_device_train_batch_size * processes
    size = values.generation_batch_size
    if size is not None and values.steps_per_generation is not None:
        raise ValueError(
            f"generation_batch_size={size} and steps_per_generation={values.steps_per_generation} say the same twice; "
            "leave one of them out."
        )
    if size is None:
        size = step * (values.steps_per_generation or values.gradient_accumulation_steps)
    elif size % step:
        raise ValueError(
            f"generation_batch_size={size} must be divisible by the {step} completions of a step "
            f"(per_device_train_batch_size={values.per_device_train_batch_size} on {processes} processes)."
        )
    if size % values.num_generations:
        raise ValueError(
            f"generation_batch_size={size} must be divisible by num_generations={values.num_generations}; where it "
            "is not set, it is per_device_train_batch_size times the processes times steps_per_generation (or "
            "gradient_accumulation_steps)."
        )
    return int(size)


def check_prompts(problems: int, size: int, generations: int) -> None:
    """
    Args:
        problems: number of training problems.
        size: completions of a generation.
        generations: completions of a prompt.

    Raises:
        ValueError: if a generation takes more prompts than there are.
    """
    if problems < size // generations:
        raise ValueError(
            f"The data has {problems} training problems, but a generation takes {size // generations} prompts "
            f"(generation_batch_size={size} / num_generations={generations})."
        )
