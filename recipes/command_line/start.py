"""The beginning of a script of recipes/, before its slow imports.

The script's own folder leaves the module search path, so that it hides no module of the user's, such as a `data.py`,
and no installed one, such as `evaluate`. `--help` and mistakes that show without an import are answered at once.
"""

import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import FrameType

from tokenshift.analysis.secrets import hide_in_text, hide_in_words
from tokenshift.recipes.command_line.commands import COMMANDS
from tokenshift.recipes.command_line.early_check import check_words
from tokenshift.recipes.command_line.early_paths import check_paths
from tokenshift.recipes.command_line.help_text import HELP_PARTS, command_help
from tokenshift.recipes.command_line.machines import tell_machines
from tokenshift.recipes.command_line.source_fields import UnreadableSource

DISK_FAULT = 1
"""Exit status where a disk is full or cannot be written."""

MISTAKE = 2
"""Exit status after a user's mistake."""

INTERRUPTED = 130
"""Exit status after Ctrl-C."""

CPU_QUANTIZATION = "bitsandbytes.backends.cpu.ops"
"""Logger that tells at each import, where bitsandbytes is installed, that 4-bit models would be slower on a CPU."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""The signals of Ctrl-C, and of `kill` and schedulers."""


TYPED: ContextVar[str | None] = ContextVar("typed", default=None)
"""The words that started a command in this process, such as `tokenshift shift`; None where a script was started."""


def program_name(script: str | Path) -> str:
    """Return the words that stand before a line to the user: those that started the command, or the script's name."""
    return TYPED.get() or Path(script).name


def status_of(number: int) -> int:
    """The exit status of a process that a signal ended: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + number


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """Handler of signals that ends the process with one line; an exception could be swallowed by what is imported."""
    if is_main_process():
        os.write(2, f"\n{signal.Signals(number).name}: stopped; nothing was done yet.\n".encode())
    os._exit(status_of(number))


def stop_during_imports() -> None:
    """Let Ctrl-C and SIGTERM end the process with one line, until `run_guarded` begins with the recipe's work."""
    for number in STOP_SIGNALS:
        signal.signal(number, stop_at_once)


def start_script(file: str) -> None:
    """Begin a script that is run by its path; the process ends here after `--help` or a mistake.

    Args:
        file: The script's `__file__`.
    """
    stop_during_imports()
    script = Path(file).resolve()
    if sys.path and Path(sys.path[0] or ".").resolve() == script.parent:
        del sys.path[0]  # where Python puts the folder of a script
    name = next(name for name, command in COMMANDS.items() if command.module == f"tokenshift.recipes.{script.stem}")
    status = answer_early(name, sys.argv[1:], f"python recipes/{script.name}")
    if status is not None:
        sys.exit(status)


def answer_early(name: str, words: list[str], program: str, *, launches: bool = False) -> int | None:
    """Answer `--help`, or a mistake, in a command's words.

    Args:
        name: The command.
        words: What follows it on the command line.
        program: The words that start it, for the usage.
        launches: Whether this process is going to start a launcher, which says how many processes run.

    Returns:
        The exit status if the words are answered, else None.
    """
    command = COMMANDS[name]
    asked = next((index for index, word in enumerate(words) if word in ("-h", "--help")), None)
    if asked is not None and command.arguments:
        part = words[asked + 1] if asked + 1 < len(words) and words[asked + 1] in HELP_PARTS else None
        try:
            show(command_help(name, program, part))
        except UnreadableSource:  # the parser's own help, after the imports
            return None
        return 0
    try:
        processes = None if launches else int(os.environ.get("WORLD_SIZE", "1"))
        arguments = replace(check_words(command, words), processes=processes)
        check_paths(name, arguments.given, arguments.fields)
        if command.early and arguments.fields:
            module, _, function = command.early.rpartition(".")
            with suppress(UnreadableSource):  # a value that is not known yet: asked again after the imports
                getattr(import_module(module), function)(arguments)
        tell_machines(program_name(command.script))
    except (ValueError, OSError, RecursionError) as error:
        report_mistake(program_name(command.script), as_mistake(error))
        _tell_machines(error)
        return MISTAKE
    if not arguments.given.get("load_in_4bit"):
        logging.getLogger(CPU_QUANTIZATION).setLevel(logging.ERROR)
    return None


def _tell_machines(error: Exception) -> None:
    """Let the processes on other machines know, which would wait for this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) > int(os.environ.get("LOCAL_WORLD_SIZE", "1")):
        from tokenshift.trainer.resume.before_group import tell_all  # here: it imports torch

        tell_all(hide_in_text(" ".join(str(error).split())))


def as_mistake(error: ValueError | OSError | RecursionError) -> ValueError:
    """A user's mistake, or what Python raises for a file that cannot be read or a value that is nested without end, as
    a user's mistake. Whatever else is raised is a defect, and not told as one.
    """
    if isinstance(error, RecursionError):
        return ValueError("a config, an option or a file is nested too deeply; write it with fewer levels.")
    return error if isinstance(error, ValueError) else ValueError(str(error))


def show(text: str) -> None:
    """Print a text whose reader, such as `head`, may close the pipe early."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end


def report_mistake(name: str, error: ValueError, *, always: bool = False) -> None:
    """Say what is wrong in one line.

    Args:
        name: What stands before the line (`program_name`).
        error: The mistake.
        always: Whether this process is known to be the one that says it. Otherwise the first process on each host
            does, since a file can be missing on one host alone.
    """
    hide_in_words(sys.argv)  # what a message may repeat of them
    if always or os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")) == "0":
        rank = "" if is_main_process() else f"rank {os.environ['RANK']} on the host {socket.gethostname()}: "
        print(hide_in_text(f"{name}: {rank}{' '.join(str(error).split())}"), file=sys.stderr)


def is_main_process() -> bool:
    """Whether this is the only process, or the first of those that were launched together."""
    return os.environ.get("RANK", "0") == "0"
