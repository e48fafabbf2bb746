"""The figure of a training: a panel for each kind of metric that was logged, and none for others."""

from typing import Any

import pytest

from tokenshift.analysis.figures.training_curves import training_curves

REWARD = {"reward": 0.5}
WEIGHTS = {f"advantage_weight/{name}": 1.0 for name in ("mean", "min", "max", "frac_active")}
BONUSES = {f"advantage_bonus/{name}": value for name, value in (("mean", 0.1), ("min", -0.2), ("max", 0.3))}
BONUSES |= {"advantage_bonus/frac_active": 0.25}


@pytest.mark.parametrize(
    ("metrics", "titles"),
    [
        (REWARD, ["Reward (mean of a generation)"]),
        (REWARD | WEIGHTS, ["Reward (mean of a generation)", "Advantage weight", "Tokens weighted other than 1"]),
        (BONUSES, ["Added to the advantage", "Tokens with a bonus other than 0"]),
    ],
)
def test_a_panel_for_what_was_logged(metrics: dict[str, Any], titles: list[str]) -> None:
    figure = training_curves([{"step": step, **metrics} for step in (1, 2)], "a title")
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == titles


def test_the_values_of_additive_weightings_are_drawn() -> None:
    figure = training_curves([{"step": step, **BONUSES} for step in (1, 2)], "a title")
    assert figure is not None
    values, active = figure.axes
    assert values.get_lines()[0].get_ydata().tolist() == [0.1, 0.1]
    assert active.get_lines()[0].get_ydata().tolist() == [25.0, 25.0]
    assert training_curves([{"step": 1, "loss": 0.0}], "a title") is None
