"""Mistakes of the SFT control that show before torch and TRL are imported; the job asks the same functions again."""

from typing import Any

from tokenshift.recipes.command_line.earlier_runs import check_earlier_run
from tokenshift.recipes.command_line.early_values import EarlyArguments
from tokenshift.recipes.jobs.sft.wordings import check_wording


def check_model_setting(values: Any) -> None:
    """
    Args:
        values: the values of all options, as attributes.

    Raises:
        ValueError: if the model is named by the option of other trainings.
    """
    if values.model_name_or_path is not None:
        raise ValueError("model_name_or_path is not used here; name the model by --base_model.")


def check_control(arguments: EarlyArguments) -> None:
    """Look at the arguments together.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    values = arguments.values
    check_model_setting(values)
    check_wording(values.wording, values.dataset_name)
    check_earlier_run(values)
