"""The noise floor of D, and the warnings that come of it."""

import logging
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from helpers.tiny_training import Build
from transformers import AutoModelForCausalLM

from tokenshift.trainer.weighting.noise_floor import METRIC, MOVED, ROUNDING, UNMOVED, NoiseFloor, rounded_anew


def test_floor_is_the_mean_size_of_the_first_unmoved_tokens() -> None:
    accelerator = Accelerator(cpu=True)
    floor = NoiseFloor()
    floor.add(torch.tensor([1e-6, -3e-6, torch.inf]), UNMOVED)
    floor.add(torch.tensor([0.5]), MOVED)
    floor.add(torch.tensor([-0.1, torch.nan]), MOVED)
    assert floor.window_mean(accelerator) == pytest.approx(0.3)
    assert floor.value == pytest.approx(2e-6)
    floor.add(torch.tensor([7.0]), UNMOVED)
    floor.add(torch.tensor([9.0]), ROUNDING)
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


def test_floor_is_the_larger_of_both_means() -> None:
    for first, second in ((1e-6, 3e-6), (3e-6, 1e-6)):
        floor = NoiseFloor()
        floor.add(torch.tensor([first]), UNMOVED)
        assert not floor.measured
        floor.add(torch.tensor([second]), ROUNDING)
        assert floor.measured
        floor.window_mean(Accelerator(cpu=True))
        assert floor.value == pytest.approx(3e-6)


def test_rounding_is_drawn_anew_in_the_computing_type_alone(tiny_model: str) -> None:
    ids = torch.arange(3, 40).unsqueeze(0)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    before = torch.get_rng_state()
    with torch.no_grad():
        plain = model(ids).logits
        changes = []
        for dtype in (torch.float32, torch.bfloat16):
            with rounded_anew(model, dtype):
                changes.append(float((model(ids).logits - plain).abs().max()))
        assert torch.equal(model(ids).logits, plain)
    assert 0 < changes[0] < 1e-5 < changes[1] < 0.1
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "settings", [{"divergence": "k3"}, {"divergence": "js", "divergence_reference": "base"}], ids=["k3", "js base"]
)
def test_floor_in_bfloat16(build: Build, caplog: pytest.LogCaptureFixture, settings: dict[str, Any]) -> None:
    floors = {}
    for name, precision in (
        ("float32", {}),
        ("autocast", {"bf16": True}),
        ("weights", {"model_init_kwargs": {"dtype": "bfloat16"}}),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            trainer = build(learning_rate=1e-9, max_steps=4, **settings, **precision)
            trainer.train()
        logs = [log for log in trainer.state.log_history if "divergence/mean" in log]
        assert {log[METRIC] for log in logs} == {logs[0][METRIC]}
        floors[name] = logs[0][METRIC]
        lines = [record.getMessage() for record in caplog.records]
        assert sum("without float32 masters" in line for line in lines) == (name == "weights")
        if name != "float32":  # where some CPUs compute one pass twice to the last bit, and the floor is nearly 0
            assert sum("not clear of its noise floor" in line for line in lines) == 1, "nothing moves but by rounding"
    # the JS of float32 distributions is itself rounded at about 1e-8
    factor = 20 if settings["divergence"] == "k3" else 1
    assert floors["autocast"] > factor * floors["float32"]
    assert floors["weights"] > factor * floors["float32"]


def test_float32_that_moves_is_told_nothing(build: Build, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        trainer = build()
        trainer.train()
    assert not [record.getMessage() for record in caplog.records if record.name.startswith("tokenshift")]
    logs = [log for log in trainer.state.log_history if "divergence/mean" in log]
    assert 0 < logs[0][METRIC] < 1e-10
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
