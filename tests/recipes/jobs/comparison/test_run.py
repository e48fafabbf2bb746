"""A comparison that is stopped."""

import io
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.small_comparison import SCRIPTS, job_of, launches
from rich.console import Console

from tokenshift.recipes.command_line.child_processes import working_on
from tokenshift.recipes.jobs.comparison.run import run_comparison


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_stops_what_it_started(number: signal.Signals, write_comparison: Callable[..., Path]) -> None:
    path = write_comparison(("  high_kl:", "  hangs: {beta: 0.1}"), ("[0, 1]", "[0]"))
    job = job_of(path)
    console = Console(file=io.StringIO())
    hanging = job.cells[1]

    def send() -> None:
        while hanging.updates() is None:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()
    with pytest.raises(KeyboardInterrupt):
        run_comparison(job.cells, job.comparison, lambda folder: 0.5, console, SCRIPTS)
    assert not working_on(hanging.folder)
    assert [cell.phase for cell in job.cells] == ["done", "waiting"]
    run_comparison(job.cells, job.comparison, lambda folder: 0.5, console, SCRIPTS)
    assert launches(path).count("hangs-seed0 training") == 2
    assert launches(path).count("dapo-seed0 training") == 1
    job.close()
