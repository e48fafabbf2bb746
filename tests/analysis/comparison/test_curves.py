"""Learning curves and the areas under them, against sums by hand."""

import math

import pytest

from tokenshift.analysis.comparison.curves import training_curve, trapezoid_mean

ACCURACY = "rewards/accuracy_reward/mean"


def test_each_value_counts_by_the_updates_for_which_it_holds() -> None:
    # generations at updates 0, 16 and 24; a probe, an evaluation and the end log no loss
    history = [
        {"step": 0, "shift/own/accuracy": 0.1},
        {"step": 4, "loss": 0.0, ACCURACY: 0.2, "reward": 0.9},
        {"step": 8, "loss": 0.0},
        {"step": 16, "loss": 0.0},
        {"step": 18, "eval_loss": 0.0, "eval_rewards/accuracy_reward/mean": 1.0},
        {"step": 20, "loss": 0.0, ACCURACY: 0.4, "reward": 0.9},
        {"step": 24, "loss": 0.0, ACCURACY: math.nan},
        {"step": 28, "loss": 0.0, ACCURACY: 0.8, "reward": 0.9},
        {"step": 32, "loss": 0.0},
        {"step": 32, "train_runtime": 3.0},
    ]
    curve = training_curve(history)
    assert curve is not None
    assert (curve.reward, curve.starts, curve.values, curve.end) == (
        "accuracy_reward",
        [0, 16, 24],
        [0.2, 0.4, 0.8],
        32,
    )
    assert curve.area == pytest.approx((16 * 0.2 + 8 * 0.4 + 8 * 0.8) / 32)


def test_the_reward_is_the_evaluations_else_the_first_else_the_sum() -> None:
    both = {"rewards/overlong/mean": -0.5, ACCURACY: 0.5, "reward": 0.0}
    history = [{"step": 1, "loss": 0.0, **both}]
    for asked, reward, area in (
        ("accuracy_reward", "accuracy_reward", 0.5),
        ("tokenshift.rewards.accuracy_reward", "accuracy_reward", 0.5),
        ("mine.graded", "overlong", -0.5),
        (None, "overlong", -0.5),
    ):
        curve = training_curve(history, asked)
        assert curve is not None
        assert (curve.reward, curve.area) == (reward, area)
    total = training_curve([{"step": 1, "reward": 0.25}, {"step": 3, "reward": 0.5}])
    assert total is not None
    assert (total.reward, total.area) == ("reward", pytest.approx((0.25 + 2 * 0.5) / 3))
    assert training_curve([{"step": 1, "loss": 0.0}]) is None
    assert training_curve([]) is None


def test_a_reward_of_two_values_has_the_area_of_its_accuracy() -> None:
    def logged(step: int, mean: float, *extremes: float) -> dict[str, float]:
        names = ("mean", *("lowest", "highest")[: len(extremes)])
        return {
            "step": step,
            "loss": 0.0,
            **{f"rewards/mine/{name}": value for name, value in zip(names, (mean, *extremes), strict=True)},
        }

    for history, area, levels in (
        ([logged(1, -1.0, -1.0, -1.0), logged(2, 0.0, -1.0, 1.0)], 0.25, (-1.0, 1.0)),
        ([logged(1, -1.0, -1.0, -1.0), logged(2, -1.0, -1.0, -1.0)], 0.0, (-1.0, 0.0)),  # never right
        ([logged(1, 2.0, 2.0, 2.0)], 1.0, (1.0, 2.0)),  # always right
        ([logged(1, 0.5, 0.0, 1.0), logged(2, 0.2, 0.0, 0.5)], 0.35, None),  # three values
        ([logged(1, 0.0, -1.0, 1.0), logged(2, 0.2)], 0.1, None),  # more than two since the first log
        ([logged(1, 0.5), logged(2, 0.2)], 0.35, None),  # logs of before
    ):
        curve = training_curve(history)
        assert curve is not None
        assert curve.levels == levels
        assert curve.area == pytest.approx(area)
    signed = training_curve([{"step": 1, "loss": 0.0, "rewards/signed_accuracy_reward/mean": -0.5}])
    assert signed is not None
    assert signed.area == pytest.approx(0.25)


def test_the_held_out_curve_is_straight_between_probes() -> None:
    assert trapezoid_mean([(0, 0.2), (10, 0.4), (40, 0.6)]) == pytest.approx((10 * 0.3 + 30 * 0.5) / 40)
    assert trapezoid_mean([(40, 0.6), (0, 0.2), (10, 0.4)]) == trapezoid_mean([(0, 0.2), (10, 0.4), (40, 0.6)])
    assert trapezoid_mean([(0, 0.2), (10, 0.4), (10, 0.4)]) is None
