"""Mistakes of a training that show before torch and TRL are imported; the job asks the same functions again."""

from collections.abc import Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from tokenshift.recipes.command_line.earlier_runs import check_earlier_run
from tokenshift.recipes.command_line.early_values import EarlyArguments, EarlyValues
from tokenshift.recipes.command_line.source_fields import UnreadableSource
from tokenshift.recipes.inputs.data_files import data_rows
from tokenshift.recipes.inputs.installed import require_vllm
from tokenshift.recipes.jobs.training.idle_options import settings_without_effect
from tokenshift.trainer.acceleration import check_acceleration
from tokenshift.trainer.generation_batch import check_prompts, generation_batch

OF_DISTRIBUTIONS = ("js", "forward_kl", "reverse_kl")
"""Divergences between whole distributions."""


def check_reward_weights(weights: Sequence[float] | None, rewards: Sequence[Any]) -> None:
    """
    Args:
        weights: of the rewards, or None.
        rewards: the rewards, or their names.

    Raises:
        ValueError: if there are not as many weights as rewards.
    """
    if weights is not None and len(weights) != len(rewards):
        raise ValueError(f"reward_weights has {len(weights)} numbers for {len(rewards)} reward_funcs.")


def check_training(arguments: EarlyArguments) -> None:
    """Look at a training's arguments together.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    arguments.refuse_without_effect(settings_without_effect)
    values = arguments.values
    for check in (_check_settings, lambda known: _check_batches(known, arguments.processes), _check_acceleration):
        with suppress(UnreadableSource):  # a value is not known yet: asked again after the imports
            check(values)


def _check_settings(values: EarlyValues) -> None:
    check_reward_weights(values.reward_weights, values.reward_funcs)
    if not values.dry_run:
        check_earlier_run(values)
        if values.use_vllm:
            require_vllm("use_vllm=True", "vllm")


def _check_batches(values: EarlyValues, processes: int | None) -> None:
    """The completions of a generation, by the processes that run or are planned, and the problems in a file."""
    if values.dry_run:
        processes = None if values.plan_launch and not values.plan_processes else values.plan_processes or 1
    if processes is None:
        return
    size = generation_batch(values, processes)
    rows = None if values.dry_run else data_rows(values.dataset_name)
    if rows is not None:
        left = rows - (values.eval_size if values.dataset_test_split == "test" else 0)
        problems = left if values.train_size is None else min(left, values.train_size)
        check_prompts(problems, size, values.num_generations)


def _check_acceleration(values: EarlyValues) -> None:
    compares = values.divergence in OF_DISTRIBUTIONS
    check_acceleration(
        SimpleNamespace(
            watches_tokens=values.advantage_weighting != "none" or values.log_divergence,
            compares_distributions=compares,
            torch_compile=values.torch_compile,
            use_liger_kernel=values.use_liger_kernel,
        )
    )
