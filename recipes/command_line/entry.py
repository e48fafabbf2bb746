"""The beginning and the end of a recipe: a user's mistake in one line, a clean stop, process groups closed."""

import linecache
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TypeVar

from tokenshift.analysis.registry import UserFunctionError
from tokenshift.analysis.storage.damage import DamagedFileError
from tokenshift.analysis.storage.disk import DiskFaultError, DiskFullError, disk_fault
from tokenshift.recipes.command_line.start import DISK_FAULT, INTERRUPTED, MISTAKE, is_main_process, report_mistake
from tokenshift.trainer.guard.errors import NonFiniteUpdateError

Job = TypeVar("Job")


FAILED = 1
"""Exit status of a training that was stopped because its numbers are not finite."""


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
    """Handler of Ctrl-C that raises KeyboardInterrupt and remembers: raised in a destructor it would be lost.

    Attributes:
        received: Whether the handler was called.
    """

    def __init__(self) -> None:
        self.received = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        raise KeyboardInterrupt


def run_guarded(
    file: str,
    prepare: Callable[[], Job],
    run: Callable[[Job], None],
    stopped: str = "Stopped; the same command goes on where it was.",
) -> int:
    """Run a recipe.

    Args:
        file: The script, whose name stands before a mistake.
        prepare: Finds the user's mistakes, raising ValueError; makes the job, which owns the output folder.
        run: Does the work.
        stopped: What is said after Ctrl-C.

    Returns:
        Exit status: 0; 1 where a disk is full or cannot be written, or after numbers that are not finite; 2 after a
        user's mistake; 130 after Ctrl-C.
    """
    import torch  # here: whoever imports this module alone must not wait for it
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of loading and saving: ours are of the work
    warnings.filterwarnings("ignore", category=FutureWarning)  # from libraries to libraries
    try:
        job = prepare()
    except ValueError as error:
        report_mistake(Path(file).name, error)
        return MISTAKE
    except OSError as error:
        return _after_disk_fault(file, error, "Nothing was done.")
    in_main_thread = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGINT, RememberedInterrupt()) if in_main_thread else None
    try:
        run(job)
    except KeyboardInterrupt:
        if is_main_process():
            print(f"\n{stopped}")
        return INTERRUPTED
    except NonFiniteUpdateError as error:
        report_mistake(Path(file).name, error)
        return FAILED
    except Exception as error:
        if isinstance(error, DamagedFileError | DiskFullError) or (isinstance(error, ValueError) and is_told(error)):
            report_mistake(Path(file).name, error)
            return MISTAKE
        return _after_disk_fault(file, error, "What is done is kept; the same command goes on from there.")
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, previous)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # left open, a process can abort after all work is done
        if hasattr(job, "close"):
            job.close()  # others may use the output folder from now on
    return 0


def _after_disk_fault(file: str, error: Exception, kept: str) -> int:
    """The exit status where the disk is at fault, after a line that says so on the process that met the fault.

    Args:
        file: The script, whose name stands before the line.
        error: What was raised.
        kept: What is kept, and how to go on; an error that says so itself needs none.

    Raises:
        Exception: The error itself, where the disk is not at fault.
    """
    fault = disk_fault(error)
    if fault is None:
        raise error
    line = str(error) if isinstance(error, DiskFaultError) else f"The disk cannot be written: {fault}. {kept}"
    print(f"{Path(file).name}: {' '.join(line.split())}", file=sys.stderr)
    return DISK_FAULT
