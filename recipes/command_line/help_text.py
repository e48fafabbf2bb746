"""The text of `--help`: the project's own arguments first, TRL's several hundred on demand."""

import re
import textwrap
from typing import Any

from tokenshift.recipes.command_line.commands import COMMANDS, Command
from tokenshift.recipes.command_line.config_files import config_names, launch_config_names
from tokenshift.recipes.command_line.early_check import command_fields
from tokenshift.recipes.command_line.source_fields import (
    NAMESPACE,
    UNKNOWN,
    SourceField,
    class_heading,
    class_lineage,
    module_docstring,
    plain_text,
)

WIDTH = 80
COLUMN = 30
"""The column at which the help of an argument begins."""

HELP_PARTS = ("trl", "all")
"""Words that may follow `--help`: the libraries' arguments alone, or all of them."""


def overview() -> str:
    """The help of `tokenshift` itself: one line per command."""
    lines = [
        "usage: tokenshift COMMAND [--launch NAME] [--NAME VALUE ...]",
        "",
        *_wrapped("GRPO with divergence-weighted advantages, and the analysis of which tokens RL changes."),
        "",
        "Commands:",
        *(f"  {name:12}{command.summary}" for name, command in COMMANDS.items()),
        "",
        *_wrapped(
            "`tokenshift COMMAND --help` lists a command's arguments; `tokenshift --version` tells the version."
        ),
        *_wrapped(f"--launch starts a command by `accelerate launch`: {', '.join(launch_config_names())}, or a file."),
    ]
    return "\n".join(lines)


def command_help(name: str, program: str, part: str | None = None) -> str:
    """The help of a command.

    Args:
        name: The command.
        program: The words that start it, for the usage.
        part: One of `HELP_PARTS`; None for the project's own arguments.

    Raises:
        UnreadableSource: If the source of an argument's class is not found.
    """
    command = COMMANDS[name]
    fields = command_fields(command)
    groups = [
        (owner, [field for field in fields.values() if field.owner == owner])
        for dotted in command.arguments
        for owner in class_lineage(dotted)
    ]
    groups = [(owner, members) for owner, members in groups if members]
    project_groups = [group for group in groups if group[0].startswith(f"{NAMESPACE}.")]
    libraries = [group for group in groups if group not in project_groups]
    launch = "[--launch NAME] " if command.launched and program.startswith(NAMESPACE) else ""
    lines = [f"usage: {program} {launch}[--NAME VALUE ...]", ""]
    if part != "trl":
        lines += _description(module_docstring(command.script), name, program)
        lines += _files(name, command, program)
    for owner, members in [*(project_groups if part != "trl" else []), *(libraries if part else [])]:
        lines += [
            *_wrapped(f"{_heading(owner, name)}:"),
            *(line for field in members for line in _argument(field)),
            "",
        ]
    if libraries and part is None:
        count = sum(len(members) for _, members in libraries)
        lines += _wrapped(
            f"{count} more arguments are those of {_listed([_class_name(owner) for owner, _ in libraries])}: "
            f"`{program} --help trl` lists them, `--help all` lists all."
        )
    return "\n".join(lines).rstrip()


def _heading(owner: str, name: str) -> str:
    if not owner.startswith(f"{NAMESPACE}."):
        return f"Arguments of {_class_name(owner)}"
    return class_heading(owner).rstrip(".") or f"Arguments of {name}"


def _class_name(owner: str) -> str:
    """A library's class, as in "TRL's GRPOConfig"."""
    library = {"trl": "TRL's", "transformers": "transformers'"}.get(owner.split(".")[0], "")
    return f"{library} {owner.rpartition('.')[2].lstrip('_')}".strip()


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _entry(left: str, text: str) -> list[str]:
    """An argument and its help in two columns."""
    lines = _wrapped(text, " " * COLUMN)
    left = f"  {left}"
    if len(left) <= COLUMN - 2 and lines:
        return [left + lines[0][len(left) :], *lines[1:]]
    return [left, *lines]


def _argument(field: SourceField) -> list[str]:
    kinds: dict[Any, str] = {int: "INT", float: "FLOAT", bool: "true|false", str: "TEXT", None: "VALUE"}
    value = "|".join(map(str, field.choices)) if field.choices else kinds[field.kind]
    text = plain_text(field.help)
    default = _default(field.default)
    if default is not None:
        text = f"{text} (default: {default})"
    return _entry(f"--{field.name} {value}{' ...' if field.is_list else ''}", text)


def _default(value: Any) -> str | None:
    """A default as it would be typed; None where there is none to show."""
    if value is UNKNOWN or value is None or value in ("", [], ()):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    path = str(value)
    return path.rpartition("/recipes/configs/")[2].removesuffix(".yaml") if "/recipes/configs/" in path else path


def _files(name: str, command: Command, program: str) -> list[str]:
    """The lines that say how the config file and the launcher are given."""
    lines = []
    names = ", ".join(config_names(command.configs)) if command.configs else ""
    if command.config_holds_arguments:
        text = (
            "YAML file of arguments, one name: value per line; the command line goes over it, and env: sets "
            "environment variables."
        )
        lines += _entry("--config FILE", f"{text} A path, or a shipped one's name: {names}." if names else text)
    if command.launched and program.startswith("tokenshift"):
        known = ", ".join(launch_config_names())
        lines += _entry("--launch NAME", f"Start by accelerate launch with this config: {known}, or a file.")
        lines += _entry("--num_processes INT", "With --launch: processes, in place of the config's.")
    if command.configs and not command.config_holds_arguments:
        lines += _entry("--config NAME", f"A shipped comparison: {names}.")
    return ["Files:", *lines, ""] if lines else []


def _description(docstring: str, name: str, program: str) -> list[str]:
    """A script's docstring with its lines of code as they are typed for this program."""
    lines: list[str] = []
    for paragraph in docstring.split("\n\n"):
        if paragraph.startswith("    "):
            code = re.sub(r" *\\\n\s*", " ", paragraph)
            for line in code.splitlines():
                lines += _code(_typed(line.strip()) if program.startswith("tokenshift") else line.strip())
        else:
            lines += _wrapped(plain_text(paragraph))
        lines.append("")
    return lines


def _typed(code: str) -> str:
    """A line of code that starts a script, as `tokenshift` is started instead."""
    for name, command in COMMANDS.items():
        script = rf"recipes/{command.script.name}"
        code = re.sub(
            rf"accelerate launch --config_file accelerate_configs/(\w+)\.yaml {script}",
            rf"tokenshift {name} --launch \1",
            code,
        )
        code = code.replace(f"python {script}", f"tokenshift {name}")
    return re.sub(r"recipes/configs/([\w.]+)\.yaml", r"\1", code)


def _code(line: str) -> list[str]:
    """A line of code, its comment set apart, broken before options where it is too long."""
    code, mark, comment = line.partition("  #")
    code, comment = code.strip(), f"  # {comment.strip()}" if mark else ""
    if len(code) + len(comment) + 4 <= WIDTH:
        return [f"    {code}{comment}"]
    lines = [f"    #{comment[3:]}"] if comment else []
    rows = [""]
    for part in re.split(r" (?=--)", code):
        if rows[-1] and len(rows[-1]) + len(part) + 11 > WIDTH:
            rows.append(part)
        else:
            rows[-1] = f"{rows[-1]} {part}".strip()
    rows = [row if index == 0 else f"    {row}" for index, row in enumerate(rows)]
    return lines + [f"    {row}{' ' + chr(92) if index < len(rows) - 1 else ''}" for index, row in enumerate(rows)]
