"""Mistakes of analyses that show before torch and transformers are imported; the jobs ask the same functions again."""

from collections.abc import Callable, Mapping
from typing import Any

from tokenshift.analysis.named_options import base_of, check_options, read_options
from tokenshift.recipes.command_line.earlier_runs import check_settings_file
from tokenshift.recipes.command_line.early_check import REGISTERED
from tokenshift.recipes.command_line.early_values import EarlyArguments
from tokenshift.recipes.command_line.source_fields import UnreadableSource, registered_signatures
from tokenshift.recipes.inputs.installed import require_vllm
from tokenshift.recipes.jobs.analysis.checkpoint_names import checkpoint_names
from tokenshift.recipes.jobs.analysis.idle_options import (
    cross_without_effect,
    evolution_without_effect,
    robustness_without_effect,
    shift_without_effect,
)
from tokenshift.recipes.jobs.analysis.model_groups import named_groups

BY_SET = ("dataset_config", "dataset_split", "prompt_column", "solution_column")
"""Options of an evaluation that take one value for all sets, or one for each."""


def check_both_asked(values: Any) -> None:
    """Refuse ways to sample in which only one policy of cross-sampling could be asked.

    Args:
        values: the values of all options, as attributes.

    Raises:
        ValueError: for `use_vllm` and for `one_model_at_a_time`.
    """
    if values.use_vllm:
        raise ValueError(
            "use_vllm=True cannot be: cross-sampling needs both models' whole distributions; give engine='vllm'."
        )
    if values.one_model_at_a_time:
        raise ValueError(
            "one_model_at_a_time=True cannot be: cross-sampling asks both policies at every token; leave it out, "
            "and spread the two by device_map if they do not fit on one device."
        )


def _check(arguments: EarlyArguments, without_effect: Callable[[Any], Mapping[str, str]] | None = None) -> Any:
    """Look at what all analyses have, and return the values."""
    values = arguments.values
    if without_effect is not None:
        arguments.refuse_without_effect(without_effect)
    if not values.dry_run:
        check_settings_file(values.output_dir, values.overwrite)
        if values.use_vllm:
            require_vllm("use_vllm=True", "vllm")
    return values


def check_shift(arguments: EarlyArguments) -> None:
    """Look at the arguments of the shift analysis."""
    values = _check(arguments, shift_without_effect)
    named_groups(values.rl_model, values.sft_models or ())


def check_evolution(arguments: EarlyArguments) -> None:
    """Look at the arguments of the analysis over checkpoints."""
    checkpoint_names(_check(arguments, evolution_without_effect).checkpoints)


def check_robustness(arguments: EarlyArguments) -> None:
    """Look at the arguments of the analysis over temperatures and top-p."""
    _check(arguments, robustness_without_effect)


def set_name(dataset: str, config: str | None, split: str | None) -> str:
    """The displayed name of an evaluation's set."""
    return dataset + (f"/{config}" if config else "") + (f":{split}" if split else "")


def check_measures(values: Any) -> None:
    """Look at the measures and at the options by set of an evaluation.

    Args:
        values: the values of all options, as attributes.

    Raises:
        ValueError: for a k out of range, and for options of another number of sets.
    """
    for k in values.ks or ():
        if not 1 <= k <= values.samples:
            raise ValueError(f"ks has {k}, which must be at least 1, and at most samples={values.samples}.")
    for name in BY_SET:
        given = getattr(values, name)
        if given is not None and len(given) not in (1, len(values.datasets)):
            raise ValueError(
                f"{name} has {len(given)} values for {len(values.datasets)} datasets; give one, or one each."
            )


def check_evaluation(arguments: EarlyArguments) -> None:
    """Look at the arguments of an evaluation."""
    values = _check(arguments)
    check_measures(values)
    if not any(len(getattr(values, name) or ()) > 1 for name in BY_SET):
        doubled = [name for index, name in enumerate(values.datasets) if name in values.datasets[:index]]
        if doubled:
            config, split = (next(iter(given or ()), None) for given in (values.dataset_config, values.dataset_split))
            raise ValueError(f"datasets names {set_name(doubled[0], config, split)!r} twice.")


def check_cross(arguments: EarlyArguments) -> None:
    """Look at the arguments of cross-sampling, and at the options of the criteria that come with the project."""
    check_both_asked(arguments.values)
    values = _check(arguments, cross_without_effect)
    try:
        known = registered_signatures(*REGISTERED["criteria"])
    except UnreadableSource:
        return
    for name in values.criteria:
        if base_of(name) in known:
            check_options(name, read_options(name, "criterion"), known[base_of(name)], "criterion")
