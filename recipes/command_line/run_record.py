"""`config.yaml` of an output folder: every setting of the run, and how it was made.

Its keys are the run's settings, so that `--config OUTPUT/config.yaml` makes the run again. They are what the command
line, its config and the defaults say, each option with its value, before anything is derived from them; `LEFT_OUT`
says which are not there. One more key, `record`, has facts that are no settings, and every reader of configs passes
over it: each launch of the run with its time, command line, library versions, git state, and the identities of models
and data.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate.logging import get_logger

from tokenshift.analysis.secrets import hide_secrets, is_secret_name
from tokenshift.analysis.storage.json_files import parse_json
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.storage.yaml_text import read_yaml
from tokenshift.recipes.command_line.commands import COMMANDS
from tokenshift.recipes.command_line.config_files import RECORD
from tokenshift.recipes.command_line.dry_run import PLAN_OPTIONS
from tokenshift.recipes.command_line.environment import LIBRARIES
from tokenshift.recipes.command_line.git_state import git_state
from tokenshift.recipes.command_line.given_options import GIVEN, WrittenOptions, written_of

logger = get_logger(__name__)

CONFIG_FILE = "config.yaml"

OTHER_FILE = "run_config.yaml"
"""The record's name where the folder has a `config.yaml` of the user's own."""

MOST_LAUNCHES = 20
"""Launches that a record has in full, the first and the newest: a config is read within bounds (`yaml_text.py`)."""

LEFT_OUT = (
    # how a launch goes on with, or replaces, what is there
    *("resume_from_checkpoint", "overwrite"),
    # what this process is on this machine
    "local_rank",
    # a plan is no run
    *PLAN_OPTIONS,
)
"""Options that say nothing of what the run computes, or that another machine would have otherwise."""

IF_GIVEN = ("use_cpu",)
"""Options whose default this machine decides: recorded where the user gave them."""

HEAD = """\
# Every setting of this run: `tokenshift {command} --config THIS_FILE --output_dir ANOTHER` makes it again.
# The key `record` at the end has how it was made; no reader takes it for a setting.
"""


def command_of(arguments: Sequence[Any]) -> str:
    """The command whose arguments these are.

    Args:
        arguments: Instances of the dataclasses of a command's arguments.
    """
    names = {kind.__name__ for instance in arguments for kind in type(instance).__mro__}
    return next(
        name
        for name, command in COMMANDS.items()
        if command.arguments and command.arguments[0].rpartition(".")[2] in names
    )


def settings_to_record(arguments: Sequence[Any]) -> dict[str, Any]:
    """Every setting by name, as it is read again.

    Args:
        arguments: Instances of the dataclasses of a command's arguments.
    """
    settings: dict[str, Any] = {}
    for instance in arguments:
        written = (written_of(instance) or WrittenOptions({})).values
        given = getattr(instance, GIVEN, ())
        for field in fields(instance):
            if not field.init or field.name in LEFT_OUT or (field.name in IF_GIVEN and field.name not in given):
                continue
            settings[field.name] = _mapping_of(plain(written.get(field.name, getattr(instance, field.name))))
    variables = next((found.variables for i in arguments if (found := written_of(i))), {})
    return without_secrets(settings | ({"env": plain(variables)} if variables else {}))


def derived_settings(arguments: Sequence[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings whose values in the run are not those that are recorded: what was derived from the others.

    Args:
        arguments: Instances of the dataclasses of a command's arguments, when all is derived.
        settings: The recorded settings.
    """
    values = {field.name: plain(getattr(i, field.name)) for i in arguments for field in fields(i) if field.init}
    named = {name: values[name] for name in settings if name in values and values[name] != settings[name]}
    return without_secrets(named)


def without_secrets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without the entries that hold a secret, at any depth: a masked one could not be used."""
    kept: dict[str, Any] = {}
    for name, value in settings.items():
        if value and is_secret_name(name):
            continue
        kept[name] = without_secrets(value) if isinstance(value, Mapping) else hide_secrets(value, name)
    return kept


def _mapping_of(value: Any) -> Any:
    """A mapping that is written as JSON, as it is on a command line; any other value as it is."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return parse_json(value)
        except ValueError:
            return value
    return value


def plain(value: Any) -> Any:
    """A value as YAML has it."""
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part) for part in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def write_record(
    folder: Path,
    command: str,
    settings: Mapping[str, Any],
    *,
    words: Sequence[str] = (),
    goes_on: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run's `config.yaml`, whole or not at all; for the main process alone.

    Args:
        folder: The output folder.
        command: The command, as `tokenshift COMMAND`.
        settings: Every setting, as the command reads it from a config.
        words: Words of the command line, without secrets.
        goes_on: Whether this launch goes on with what earlier ones left: then their records are kept beside its own.
        facts: What else is to be known of this launch, such as the identities of models and data.

    Returns:
        The file; a `config.yaml` of the user's own stays as it is, and the record gets another name.
    """
    file = record_file(folder)
    earlier = _read(file) if goes_on else {}
    recorded = earlier.get(RECORD) or {}
    launches = list(recorded.get("launches", []))
    launch = {
        "started": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command_line": shlex.join(["tokenshift", command, *words]),
        **machine_facts(),
        **plain(without_secrets(facts or {})),
    }
    if launches:
        launch["goes_on"] = True
        before = {name: value for name, value in earlier.items() if name != RECORD}
        if changed := {
            name: {"before": before.get(name), "now": settings.get(name)}
            for name in [*settings, *(before.keys() - settings.keys())]
            if before.get(name) != settings.get(name)
        }:
            launch["changed"] = changed
    launches.append(launch)
    left_out = recorded.get("launches_left_out", 0) + max(0, len(launches) - MOST_LAUNCHES)
    kept = [*launches[:1], *launches[1:][1 - MOST_LAUNCHES :]]
    facts_of_all = {"command": command, "launches": kept, **({"launches_left_out": left_out} if left_out else {})}
    record = {**settings, RECORD: facts_of_all}
    text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=120)
    write_whole(file, HEAD.format(command=command) + text)
    return file


def record_file(folder: Path) -> Path:
    """The file that holds a run's record, or will hold it."""
    file = folder / CONFIG_FILE
    if not file.is_file() or RECORD in _read(file):
        return file
    logger.warning(f"{file} is no run's record, and stays as it is: this run's goes to {OTHER_FILE}.")
    return folder / OTHER_FILE


def record_launch(folder: Path, arguments: Sequence[Any], *, goes_on: bool, **facts: Any) -> Path:
    """Write the record of a run whose settings are parsed arguments; for the main process alone.

    Args:
        folder: The output folder.
        arguments: Instances of the dataclasses of the command's arguments.
        goes_on: Whether this launch goes on with what earlier ones left.
        facts: What else is to be known of this launch.
    """
    settings = settings_to_record(arguments)
    derived = derived_settings(arguments, settings)
    return write_record(
        folder,
        command_of(arguments),
        settings,
        words=written_words(arguments),
        goes_on=goes_on,
        facts={**facts, **({"derived": derived} if derived else {})},
    )


def written_words(arguments: Sequence[Any]) -> Sequence[str]:
    """Words of the command line that arguments were parsed from, without secrets."""
    return next((written.words for i in arguments if (written := written_of(i))), ())


def machine_facts() -> dict[str, Any]:
    """Versions, git states, processes and device: what numbers can depend on beside the settings."""
    versions = {"tokenshift": _version("tokenshift")} | {name: _version(name) for name in LIBRARIES}
    checkouts = {"working_directory": Path.cwd(), "tokenshift": Path(__file__).resolve().parent}
    git = {name: state for name, folder in checkouts.items() if (state := git_state(folder)) is not None}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return {
        "versions": {name: found for name, found in versions.items() if found is not None},
        **({"git": git} if git else {}),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "device": device,
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _read(file: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; empty where it cannot be read."""
    try:
        content = read_yaml(file)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
