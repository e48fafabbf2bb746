"""Mistakes in the arguments of a copy of a model with changes that show before the slow imports."""

from tokenshift.recipes.command_line.early_values import EarlyArguments
from tokenshift.recipes.inputs.overrides import read_overrides


def check_change(arguments: EarlyArguments) -> None:
    """Look at the arguments of a copy with changes, before the slow imports.

    Raises:
        ValueError: if no change is given.
    """
    read_overrides(arguments.values.model_config_overrides)
