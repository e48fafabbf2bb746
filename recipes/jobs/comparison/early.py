"""Mistakes in a comparison's file that show before torch and TRL are imported."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenshift.analysis.comparison.outcomes import OUTCOMES
from tokenshift.analysis.registry import close_match
from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.recipes.command_line.commands import COMMANDS
from tokenshift.recipes.command_line.config_files import CONFIGS, LAUNCH_CONFIGS, config_file
from tokenshift.recipes.command_line.early_check import check_values, command_fields
from tokenshift.recipes.command_line.early_values import EarlyArguments
from tokenshift.recipes.jobs.comparison.lined_yaml import LinedYaml, Position
from tokenshift.recipes.jobs.comparison.schema import read_settings

COMPARISON_FILE = "comparison.json"
"""The results of a comparison, in its folder."""


def check_outcome(outcome: str | None) -> None:
    """
    Raises:
        ValueError: for an outcome that is not known.
    """
    if outcome is not None and outcome not in OUTCOMES:
        hint = close_match(outcome, OUTCOMES) or f"; choose one of {', '.join(OUTCOMES)}."
        raise ValueError(f"outcome={outcome!r} is not known{hint}")


def check_effect(plan: Any, effect: float | None) -> float:
    """The true difference of a plan, in points.

    Raises:
        ValueError: if it is missing, or is not above 0.
    """
    if effect is None:
        raise ValueError(f"plan={plan!r} needs an effect; give the true difference in points, as in --effect 2.")
    if not 0 < effect < float("inf"):
        raise ValueError(f"effect={effect:g} must be above 0: a difference in points, whatever its sign.")
    return effect


def pilot_of(given: str) -> Path | float:
    """The file of a former comparison, or the standard deviation in points, that a plan names.

    Raises:
        ValueError: for a number that is not above 0, and for a file that is not there.
    """
    try:
        number = float(given)
    except ValueError:
        path = user_path(given, "plan")
        file = path / COMPARISON_FILE if path.is_dir() else path
        if not file.is_file():
            raise ValueError(
                f"plan={str(file)!r} is not a file; give a former comparison's folder, or a spread in points."
            ) from None
        return file
    if not 0 < number < float("inf"):
        raise ValueError(
            f"plan={given} must be above 0: the standard deviation of a difference over seeds, in points."
        )
    return number


def check_file(arguments: EarlyArguments) -> None:
    """Look at the file that a comparison's command line names.

    Args:
        arguments: Those of the command line.

    Raises:
        ValueError: For the first mistake, with its line.
    """
    given = arguments.given
    check_outcome(given.get("outcome"))
    plan = given.get("plan")
    if plan is not None:
        check_effect(plan, given.get("effect"))
        pilot_of(str(plan))
        return
    pattern = COMMANDS["compare"].configs or "*"
    document = LinedYaml(config_file(str(given.get("config") or CONFIGS / "compare_pocket.yaml"), pattern))
    settings = read_settings(document)
    if isinstance(settings.config, str):
        document.file(("config",), settings.config, CONFIGS, COMMANDS["train"].configs or "*")
    if settings.launch is not None:
        document.file(("launch", "config_file"), settings.launch.config_file, LAUNCH_CONFIGS)
    groups: list[tuple[str, Mapping[str, Any], Position, str]] = [
        ("train", settings.overrides, ("overrides",), ""),
        *(
            ("train", variant, ("variants", name), f"variant {name!r}: ")
            for name, variant in settings.variants.items()
        ),
        ("evaluate", settings.evaluation, ("evaluation",), "evaluation: "),
    ]
    for command, values, position, prefix in groups:
        fields = command_fields(COMMANDS[command])
        try:
            check_values({name: value for name, value in values.items() if name in fields}, fields)
        except ValueError as error:
            written = {name: (*position, name) for name in values}
            raise document.blame(error, written, position, prefix) from error
