"""The beginning and the end of a recipe: a user's mistake in one line, a clean stop, process groups closed."""

import linecache
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import TypeVar

from tokenshift.analysis.registry import UserFunctionError
from tokenshift.analysis.secrets import hide_in_text
from tokenshift.analysis.storage.damage import DamagedFileError
from tokenshift.analysis.storage.disk import DiskFaultError, DiskFullError, disk_fault
from tokenshift.recipes.command_line.start import (
    DISK_FAULT,
    INTERRUPTED,
    MISTAKE,
    STOP_SIGNALS,
    is_main_process,
    program_name,
    report_mistake,
    status_of,
    stop_at_once,
)
from tokenshift.trainer.guard.errors import LostProcessError, NonFiniteUpdateError

Job = TypeVar("Job")


FAILED = 1
"""Exit status where numbers are not finite, or another process of the run is lost."""


class LateMistakeError(ValueError):
    """A user's mistake that shows only while a run is under way."""


def is_told(error: ValueError) -> bool:
    """Whether an error's text was written for the user, by a `raise` of this project: not by a slip in its code."""
    if isinstance(error, UserFunctionError | LateMistakeError):
        return True
    steps = list(traceback.walk_tb(error.__traceback__))
    if not steps:
        return False
    frame, line = steps[-1]
    written = linecache.getline(frame.f_code.co_filename, line).strip()
    return str(frame.f_globals.get("__name__", "")).startswith("tokenshift.") and written.startswith("raise ")


class RememberedInterrupt:
    """Handler of Ctrl-C and SIGTERM that raises KeyboardInterrupt and remembers: in a destructor it would be lost.

    Attributes:
        received: Whether the handler was called.
        status: The exit status of a process that the last signal ended.
    """

    def __init__(self) -> None:
        self.received = False
        self.status = INTERRUPTED

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self.status = status_of(number)
        raise KeyboardInterrupt


def run_guarded(
    file: str,
    prepare: Callable[[], Job],
    run: Callable[[Job], None],
    stopped: str = "Stopped; the same command goes on where it was.",
) -> int:
    """Run a recipe.

    Args:
        file: The script; its name stands before a mistake, unless `tokenshift` started it.
        prepare: Finds the user's mistakes, raising ValueError; makes the job, which owns the output folder.
        run: Does the work.
        stopped: What is said after Ctrl-C or SIGTERM, and where another process is lost.

    Returns:
        Exit status: 0; 1 where a disk is full or cannot be written, where another process of the run is lost, or
        after numbers that are not finite; 2 after a user's mistake; 130 after Ctrl-C, 143 after SIGTERM.
    """
    import torch  # here: whoever imports this module alone must not wait for it
    from transformers.utils.logging import disable_progress_bar

    from tokenshift.trainer.resume.process_group import ended_ranks, is_lost, lost_process

    disable_progress_bar()  # of loading and saving: ours are of the work
    warnings.filterwarnings("ignore", category=FutureWarning)  # from libraries to libraries
    interrupt = RememberedInterrupt()
    job: Job | None = None
    in_main_thread = threading.current_thread() is threading.main_thread()
    previous = {number: signal.signal(number, interrupt) for number in STOP_SIGNALS} if in_main_thread else {}
    try:
        try:
            job = prepare()
        except ValueError as error:
            return _after_mistake(file, error)
        except OSError as error:
            return _after_disk_fault(file, error, "Nothing was done.")
        run(job)
    except SystemExit as error:  # nothing of this project raises it here
        return _after_mistake(file, _exited(error))
    except KeyboardInterrupt as error:
        _ignore_signals(previous)
        if ended_ranks():  # a launcher ends the others so
            return _after_lost_process(file, error, "Another process of this run is gone.", stopped)
        if is_main_process():
            print(f"\n{stopped}")
        return interrupt.status
    except NonFiniteUpdateError as error:  # on every process
        if is_main_process():
            report_mistake(program_name(file), error)
        return FAILED
    except Exception as error:
        if is_lost(error):
            _ignore_signals(previous)
            return _after_lost_process(file, error, lost_process(error), stopped)
        if isinstance(error, DamagedFileError | DiskFullError) or (isinstance(error, ValueError) and is_told(error)):
            return _after_mistake(file, error)
        return _after_disk_fault(file, error, "What is done is kept; the same command goes on from there.")
    finally:
        for number, handler in previous.items():
            if handler is not stop_at_once:
                signal.signal(number, handler)
            elif signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # left open, a process can abort after all work is done
        if job is not None and hasattr(job, "close"):
            job.close()  # others may use the output folder from now on
    return 0


def _exited(error: SystemExit) -> ValueError:
    """A mistake of a user's function, such as a callback or a collator, that ended the program in the middle."""
    frames = traceback.extract_tb(error.__traceback__)
    users = [frame for frame in frames if not frame.filename.startswith(str(Path(__file__).parents[2]))]
    frame = (users or frames)[-1]
    return LateMistakeError(
        f"{frame.name} ({frame.filename}, line {frame.lineno}) ended the program by SystemExit({error.code!r}) in the "
        "middle of the run; let it return or raise an error."
    )


def _ignore_signals(handled: Iterable[int]) -> None:
    """Let nothing interrupt what is said at the end; a launcher sends SIGTERM to all processes when one has ended."""
    for number in handled:
        signal.signal(number, signal.SIG_IGN)


def _after_mistake(file: str, error: ValueError) -> int:
    """The exit status after a user's mistake, and a line of the first process that has it."""
    from tokenshift.trainer.resume.before_group import tell_all  # here: they import torch
    from tokenshift.trainer.resume.process_group import tell_mistake

    text = hide_in_text(" ".join(str(error).split()))
    if tell_mistake(text):
        report_mistake(program_name(file), error, always=True)
    tell_all(text)
    return MISTAKE


def _after_lost_process(file: str, error: BaseException, lost: str | None, stopped: str) -> int:
    """The exit status where another process is lost, after a line of the first process on this host.

    Args:
        file: The script.
        error: What was raised; it may say more.
        lost: The process that is lost, in a sentence.
        stopped: What is kept, and how to go on; an error that says so itself needs none.
    """
    from tokenshift.trainer.resume.process_group import host_of, mistake_of_another, speaks_for_host

    mistake = mistake_of_another()
    if mistake is not None:
        if speaks_for_host():
            rank, text = mistake
            line = (
                f"Rank {rank} on the host {host_of(rank)} has ended with a mistake that this process has not: {text}"
            )
            print(hide_in_text(f"{program_name(file)}: {line}"), file=sys.stderr)
        return MISTAKE
    if speaks_for_host():
        told = isinstance(error, LostProcessError)
        line = str(error) if told else f"{lost} {stopped}"
        print(hide_in_text(f"{program_name(file)}: {' '.join(line.split())}"), file=sys.stderr)
    return FAILED


def _after_disk_fault(file: str, error: Exception, kept: str) -> int:
    """The exit status where the disk is at fault, after a line that says so on the process that met the fault.

    Args:
        file: The script.
        error: What was raised.
        kept: What is kept, and how to go on; an error that says so itself needs none.

    Raises:
        Exception: The error itself, where the disk is not at fault.
    """
    fault = disk_fault(error)
    if fault is None:
        raise error
    line = str(error) if isinstance(error, DiskFaultError) else f"The disk cannot be written: {fault}. {kept}"
    print(f"{program_name(file)}: {' '.join(line.split())}", file=sys.stderr)
    return DISK_FAULT
