"""How a recipe ends after a signal, or when another process of its run is lost."""

import signal
import subprocess
import sys

import pytest

from tokenshift.recipes.command_line.entry import run_guarded
from tokenshift.trainer.guard.errors import LostProcessError

CLOSED = "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:27019"

IMPORTING = """
import time
from tokenshift.recipes.command_line.start import stop_during_imports
stop_during_imports()
print("imports", flush=True)
try:
    time.sleep(60)
except BaseException:  # as a library may
    print("swallowed")
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("when", ["preparation", "work"])
def test_a_signal_ends_in_one_line(
    number: signal.Signals, status: int, when: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def raise_signal(job: None = None) -> None:
        signal.raise_signal(number)

    before = signal.getsignal(number)
    work = raise_signal if when == "work" else lambda job: None
    assert run_guarded("x.py", raise_signal if when == "preparation" else lambda: None, work, "Stopped.") == status
    output = capfd.readouterr()
    assert (output.out + output.err).strip() == "Stopped."
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_the_imports_ends_in_one_line(number: signal.Signals, status: int) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", IMPORTING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "imports\n"
    run.send_signal(number)
    output, errors = run.communicate(timeout=60)
    assert (run.returncode, output) == (status, "")
    assert errors.strip() == f"{number.name}: stopped; nothing was done yet."


def test_a_lost_process_ends_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def lose(job: None) -> None:
        raise RuntimeError(CLOSED)

    def lose_in_training(job: None) -> None:
        try:
            raise RuntimeError(CLOSED)
        except RuntimeError as error:
            raise LostProcessError("Another process of this run is gone. checkpoint-2 is the last.") from error

    assert run_guarded("x.py", lambda: None, lose) == 1
    said = "x.py: Another process of this run is gone. Stopped; the same command goes on where it was.\n"
    assert capsys.readouterr().err == said
    assert run_guarded("x.py", lambda: None, lose_in_training) == 1
    assert capsys.readouterr().err == "x.py: Another process of this run is gone. checkpoint-2 is the last.\n"
