"""The `tokenshift` command: one name for each recipe, run in this process or, with `--launch`, by accelerate.

    tokenshift train --config smollm2_arithmetic
    tokenshift train --launch ddp --num_processes 4
    tokenshift train --dry_run --launch zero3 --num_processes 32
    tokenshift shift --dry_run --plan_gpu_gib 80

`python recipes/X.py` and `accelerate launch ... recipes/X.py` do the same; the command also works where there is no
checkout.
"""

import os
import sys
from importlib import import_module

from tokenshift.analysis.registry import close_match
from tokenshift.recipes.command_line.commands import COMMANDS
from tokenshift.recipes.command_line.config_files import launch_config
from tokenshift.recipes.command_line.dry_run import with_planned_launch
from tokenshift.recipes.command_line.help_text import overview
from tokenshift.recipes.command_line.machines import check_launch_options, is_on_several_machines
from tokenshift.recipes.command_line.start import (
    INTERRUPTED,
    MISTAKE,
    TYPED,
    answer_early,
    as_mistake,
    report_mistake,
    show,
    stop_during_imports,
)

LAUNCH = "--launch"
LAUNCHER_OPTIONS = {
    "--num_processes": 1,
    "--num_machines": 1,
    "--machine_rank": 0,
    "--main_process_ip": None,
    "--main_process_port": 0,
}
"""Options that are passed on to `accelerate launch` -> the smallest whole number that is one; None for text."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Words of the command line; `sys.argv`'s when None.

    Returns:
        Exit status: the command's own; 2 after a user's mistake; 130 after Ctrl-C.
    """
    if arguments is None:
        stop_during_imports()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        show(overview())
        return 0
    if words[0] == "--version":
        from importlib.metadata import version  # here: it is slower than all else

        show(f"tokenshift {version('tokenshift')}")
        return 0
    name, words = words[0], words[1:]
    try:
        if name not in COMMANDS:
            hint = close_match(name, COMMANDS) or f"; known are {', '.join(COMMANDS)}."
            raise ValueError(f"{name!r} is no command{hint}")
        launcher, words = split_launch(name, with_planned_launch(name, words))
    except (ValueError, OSError, RecursionError) as error:
        report_mistake("tokenshift", as_mistake(error))
        return MISTAKE
    typed = TYPED.set(f"tokenshift {name}")
    try:
        return _run(name, launcher, words)
    finally:
        TYPED.reset(typed)


def _run(name: str, launcher: list[str], words: list[str]) -> int:
    """Run a command with its words, by a launcher if there is one, and return the exit status."""
    asks_help = any(word in ("-h", "--help") for word in words)
    if asks_help or not is_on_several_machines(launcher):  # else the launched process tells the other machines too
        status = answer_early(name, words, f"tokenshift {name}", launches=bool(launcher))
        if status is not None:
            return status
    command = COMMANDS[name]
    if launcher:
        sys.stdout.flush()
        os.execv(launcher[0], [*launcher, str(command.script), *words])
    sys.argv = [str(command.script) if command.arguments else f"tokenshift {name}", *words]
    try:
        return int(import_module(command.module).main(words))
    except KeyboardInterrupt:  # before or after the work, which ends in its own way
        return INTERRUPTED


def split_launch(name: str, words: list[str]) -> tuple[list[str], list[str]]:
    """The words of the launcher, and those of the command.

    Args:
        name: The command.
        words: What follows it on the command line.

    Returns:
        The words before the script, none without `--launch`; and the other words.

    Raises:
        ValueError: If `--launch` names no config, a value is none of its option's, the command cannot be launched, or
            the launch could not come together.
    """
    options: dict[str, str] = {}
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        option, joined, value = word.partition("=")
        if option in (LAUNCH, *LAUNCHER_OPTIONS):
            options[option] = value if joined else next(rest, "")
        else:
            others.append(word)
    if not options:
        return [], others
    if LAUNCH not in options:
        raise ValueError(f"{next(iter(options))} is for accelerate launch; give {LAUNCH} too.")
    if not COMMANDS[name].launched:
        reason = (
            "it launches its trainings itself, by what launch in its file names."
            if name == "compare"
            else "it launches its parts itself."
            if name == "reproduce"
            else ("it runs in one process.")
        )
        raise ValueError(f"{name} takes no {LAUNCH}: {reason}")
    config = launch_config(options.pop(LAUNCH))
    for option, value in options.items():
        _check_launcher_value(option, value)
    if not {"-h", "--help", "--dry_run"} & set(others):  # which start nothing on this machine
        check_launch_options(config, options)
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    return [*launcher, *(word for option in options.items() for word in option)], others


def _check_launcher_value(option: str, value: str) -> None:
    """Refuse a value that accelerate would answer with its usage.

    Raises:
        ValueError: If it is empty, no whole number, or too small.
    """
    smallest = LAUNCHER_OPTIONS[option]
    if smallest is None:
        if not value or value.startswith("--"):
            raise ValueError(f"{option} needs a value, for example {option} 10.0.0.1.")
    elif not value.isdecimal() or int(value) < smallest:
        raise ValueError(f"{option} {value!r} must be a whole number of at least {smallest}.")


if __name__ == "__main__":
    sys.exit(main())
