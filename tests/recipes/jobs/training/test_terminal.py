"""A training's last lines on the terminal name signs of trouble."""

from pathlib import Path
from typing import Any

import pytest

from tokenshift.recipes.jobs.training import terminal
from tokenshift.trainer.diagnosis.run_record import RunRecord


def record(equal: float) -> RunRecord:
    logs = [{"step": step, "loss": 0.0, "frac_reward_zero_std": equal} for step in range(1, 11)]
    return RunRecord(logs, folder=Path("outputs/mine"))


def test_only_what_was_found_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_diagnosis(record(0.2))
    assert capsys.readouterr().out == ""
    terminal.show_diagnosis(record(0.8))
    shown = capsys.readouterr().out
    assert "tokenshift doctor outputs/mine shows it again" in shown
    assert "1. Most groups teach nothing (equal_groups)" in shown


def test_it_never_fails_a_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(run: Any) -> None:
        raise KeyError("step")

    monkeypatch.setattr(terminal, "diagnose", broken)
    terminal.show_diagnosis(record(0.8))
    assert "could not be looked at for signs of trouble: KeyError" in capsys.readouterr().out
