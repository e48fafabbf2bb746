"""The noise floor of D, and the warnings that come of it."""

import logging
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from helpers.tiny_training import Build
from transformers import AutoModelForCausalLM

from tokenshift.trainer.weighting.noise_floor import METRIC, NoiseFloor


def test_floor_is_the_mean_size_of_the_first_unmoved_tokens() -> None:
    accelerator = Accelerator(cpu=True)
    floor = NoiseFloor()
    floor.add(torch.tensor([1e-6, -3e-6, torch.inf]), moved=False)
    floor.add(torch.tensor([0.5]), moved=True)
    floor.add(torch.tensor([-0.1, torch.nan]), moved=True)
    assert floor.window_mean(accelerator) == pytest.approx(0.3)
    assert floor.value == pytest.approx(2e-6)
    floor.add(torch.tensor([7.0]), moved=False)
    assert floor.window_mean(accelerator) is None
    assert floor.value == pytest.approx(2e-6), "it is measured once"


def test_a_mean_divergence_is_told_below_two_floors() -> None:
    floor = NoiseFloor(value=1e-5)
    assert "not clear of its noise floor, 1e-05 nats" in str(floor.warning(1.9e-5, short=True))
    assert "float32" in str(floor.warning(1.9e-5, short=True))
    assert "float32" not in str(floor.warning(1.9e-5, short=False))
    assert floor.warning(2.1e-5, short=True) is None
    assert floor.warning(None, short=True) is None
    assert NoiseFloor().warning(1.0, short=True) is None
    assert NoiseFloor(value=0.0).warning(0.0, short=True) is None, "nothing is rounded"


@pytest.mark.parametrize(
    "settings", [{"divergence": "k3"}, {"divergence": "js", "divergence_reference": "base"}], ids=["k3", "js base"]
)
def test_bfloat16_without_masters_is_told_and_its_noise_logged(
    build: Build, tiny_model: str, caplog: pytest.LogCaptureFixture, settings: dict[str, Any]
) -> None:
    with caplog.at_level(logging.WARNING):
        trainer = build(learning_rate=1e-9, model_init_kwargs={"dtype": "bfloat16"}, **settings)
        trainer.train()
    logs = [log for log in trainer.state.log_history if "divergence/mean" in log]
    assert logs[0][METRIC] == pytest.approx(logs[0]["divergence/mean"]), "the first update's policy had not moved"
    assert {log[METRIC] for log in logs} == {logs[0][METRIC]}
    lines = [record.getMessage() for record in caplog.records]
    assert sum("trained weights are bfloat16, without float32 masters" in line for line in lines) == 1
    if logs[0][METRIC] > 0:
        assert sum("not clear of its noise floor" in line for line in lines) == 1


def test_float32_that_moves_is_told_nothing(build: Build, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        trainer = build()
        trainer.train()
    assert not [record.getMessage() for record in caplog.records if record.name.startswith("tokenshift")]
    logs = [log for log in trainer.state.log_history if "divergence/mean" in log]
    assert 0 <= logs[0][METRIC] < 1e-10
    assert max(log["divergence/mean"] for log in logs) > 1e-4


def test_base_that_is_not_the_policy_is_told(
    build: Build, tiny_model: str, problems: Any, caplog: pytest.LogCaptureFixture
) -> None:
    reference = build(divergence="js", divergence_reference="base", max_steps=1)
    policy = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        policy.lm_head.weight.mul_(3.0)  # as if trained after it was loaded
    trainer = type(reference)(
        model=policy, reward_funcs=reference.reward_funcs, args=reference.args, train_dataset=problems
    )
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert sum("from the base that its config names" in record.getMessage() for record in caplog.records) == 1
