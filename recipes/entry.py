"""How a recipe begins and ends: a user's mistake in one line, a clean stop, process groups closed."""

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from transformers.utils.logging import disable_progress_bar

Job = TypeVar("Job")


def guarded(
    file: str,
    prepare: Callable[[], Job],
    run: Callable[[Job], None],
    stopped: str = "Stopped; the same command goes on where it was.",
) -> int:
    """Run a recipe.

    Args:
        file: the script, whose name stands before a mistake.
        prepare: finds the user's mistakes, raising ValueError.
        run: does the work.
        stopped: said after Ctrl-C.

    Returns:
        Exit status: 0; 2 after a user's mistake; 130 after Ctrl-C.
    """
    disable_progress_bar()  # of loading and saving: ours are of the work
    warnings.filterwarnings("ignore", category=FutureWarning)  # from libraries to libraries
    main_process = os.environ.get("RANK", "0") == "0"
    try:
        job = prepare()
    except ValueError as error:
        if main_process:
            print(f"{Path(file).name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    try:
        run(job)
    except KeyboardInterrupt:
        if main_process:
            print(f"\n{stopped}")
        return 130
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # left open, a process can abort after all work is done
    return 0
