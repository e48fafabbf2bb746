"""Recipes launched as processes of their own: run to their end, or killed on the way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]

DDP = ["-m", "accelerate.commands.launch", "--main_process_port", "0"]
DDP += ["--config_file", str(ROOT / "accelerate_configs" / "ddp.yaml")]
"""Words before a script that two processes share."""


def start(words: list[str], folder: Path = ROOT) -> subprocess.Popen[str]:
    """Python with these words, on one thread, in the project's folder or another one."""
    return subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},  # lines come in their order
    )


def finish(run: subprocess.Popen[str], seconds: float = 300) -> str:
    """The output of a run that must end well."""
    output, _ = run.communicate(timeout=seconds)
    assert run.returncode == 0, output
    return output


def refusal(run: subprocess.Popen[str], seconds: float = 300) -> str:
    """The one line in which it refused its arguments."""
    output, _ = run.communicate(timeout=seconds)
    assert run.returncode == 2, output
    return output.strip().splitlines()[-1]


def kill_once(run: subprocess.Popen[str], begun: Callable[[], bool]) -> None:
    """End it at once when something has begun."""
    deadline = time.monotonic() + 200
    while not begun() and run.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert run.poll() is None, "it was over before it could be killed"
    run.send_signal(signal.SIGKILL)
    run.wait()
