"""The W&B workspace: what it would show, without an account and without a network."""

import builtins
from typing import Any

import pytest

from tokenshift.analysis.shift.figures.probe import PROBE_FIGURES
from tokenshift.recipes.command_line import workspace
from tokenshift.recipes.command_line.workspace import FIGURES, main, make_workspace, workspace_sections
from tokenshift.trainer.tracking.metrics import HEADLINE


def test_the_first_section_has_the_scalars_to_look_at_first() -> None:
    first, *others = workspace_sections()
    assert [chart.title for chart in first.charts] == list(HEADLINE)
    assert first.is_open
    assert not any(section.is_open for section in others)
    names = {chart.metrics for chart in first.charts}
    assert {("train/reward",), ("divergence/p95",), ("shift/own/accuracy",)} <= names
    axes = {chart.metrics[0]: chart.x for section in workspace_sections() for chart in section.charts}
    assert all(axis == ("shift/step" if "shift/" in name else "train/global_step") for name, axis in axes.items())


def test_figures_are_those_that_the_probe_draws() -> None:
    assert set(FIGURES) == {*PROBE_FIGURES._figures, "percentiles"}


def test_it_is_printed_without_being_sent(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("At a glance\n  reward ")
    assert "shift/own/top_p/p99" in shown


@pytest.mark.parametrize(("words", "message"), [([], "--entity is missing"), (["x"], "'x' belongs to no argument")])
def test_mistakes(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_a_missing_package_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    imported = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("wandb_workspaces"):
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["--entity", "me"]) == 2
    assert capsys.readouterr().err == (
        "tokenshift workspace: A workspace needs wandb-workspaces: pip install wandb-workspaces\n"
    )


def test_what_is_sent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed: pip install wandb-workspaces")
    made = make_workspace("me", "mine", "view")
    view = made._to_model()
    assert (view.entity, view.project, view.display_name) == ("me", "mine", "view")
    sections = view.spec.section.panel_bank_config.sections
    assert [section.name for section in sections[:5]] == [section.title for section in workspace_sections()]
    drawn = [panel.config.metrics for panel in sections[0].panels]
    assert drawn == [list(chart.metrics) for chart in workspace_sections()[0].charts]
    assert {panel.config.x_axis for panel in sections[2].panels} == {"shift/step"}

    def refuse(self: Any) -> None:
        raise ConnectionError("no answer\nfrom W&B")

    monkeypatch.setattr(type(made), "save", refuse)
    assert workspace.main(["--entity", "me"]) == 2
    assert "W&B did not take the workspace (ConnectionError: no answer from W&B)" in capsys.readouterr().err
