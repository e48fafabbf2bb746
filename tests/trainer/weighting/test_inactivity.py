"""A weighting that changes nothing is told once, with the reason."""

import logging
from typing import Any

import pytest
from helpers.tiny_training import Build


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"learning_rate": 0.0}, "learning_rate=0, so the policy never moves"),
        ({"divergence_scale": 0.01}, "divergence_scale=0.01 allows no weight further than 0.005 from 1"),
        ({"divergence_alpha": 1e-6}, "nats, too little for divergence_alpha=1e-06"),
        ({"learning_rate": 1e-9}, "the policy moves too little"),
        ({"advantage_weighting": "low_prob", "low_prob_coef": 0.005}, "low_prob_coef=0.005 allows no weight beyond"),
    ],
)
def test_reason_is_told_once(
    build: Build, settings: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        build(**settings).train()
    lines = [record.getMessage() for record in caplog.records if "frac_active is 0" in record.getMessage()]
    assert len(lines) == 1
    assert reason in lines[0]


def test_nothing_is_told_of_the_warm_up(build: Build, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        build(warmup_steps=2, max_steps=2).train()  # the first update's learning rate is 0
    assert "frac_active is 0" not in caplog.text
