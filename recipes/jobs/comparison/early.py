"""Mistakes in a comparison's file that show before torch and TRL are imported."""

from collections.abc import Mapping
from typing import Any

from tokenshift.recipes.command_line.commands import COMMANDS
from tokenshift.recipes.command_line.config_files import CONFIGS, LAUNCH_CONFIGS, config_file
from tokenshift.recipes.command_line.early_check import check_values, command_fields
from tokenshift.recipes.command_line.early_values import EarlyArguments
from tokenshift.recipes.jobs.comparison.lined_yaml import LinedYaml, Position
from tokenshift.recipes.jobs.comparison.schema import read_settings


def check_file(arguments: EarlyArguments) -> None:
    """Look at the file that a comparison's command line names.

    Args:
        arguments: Those of the command line.

    Raises:
        ValueError: For the first mistake, with its line.
    """
    given = arguments.given
    if given.get("plan") is not None:
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
