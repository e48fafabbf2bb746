"""Ctrl-C before training is not lost, even where a library swallows its exception."""

import contextlib
import signal
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState

from tokenshift.recipes.command_line.entry import RememberedInterrupt, run_guarded
from tokenshift.trainer.resume.interrupt import CheckpointOnSignal


def test_a_swallowed_interrupt_ends_the_run_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    def run(job: None) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        arguments: Any = (None, TrainerState(), TrainerControl())
        CheckpointOnSignal().on_train_begin(*arguments)

    before = signal.getsignal(signal.SIGINT)
    assert run_guarded("x.py", lambda: None, run, "Stopped.") == 130
    assert "Stopped." in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before
    assert not isinstance(before, RememberedInterrupt)
