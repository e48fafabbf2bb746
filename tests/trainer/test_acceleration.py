"""Compiled models, kernels, split texts and asynchronous rollouts: each works, or is refused with its reason."""

from typing import Any

import pytest
import torch
from accelerate.parallelism_config import ParallelismConfig
from helpers.tiny_training import Build, parameters
from trl.experimental.async_grpo import AsyncGRPOConfig

from tokenshift.trainer import DivergenceGRPOTrainer

BASE = {"divergence": "js", "divergence_reference": "base"}


@pytest.mark.slow
def test_a_compiled_model_trains_as_a_plain_one(build: Build) -> None:
    plain = build(max_steps=2)
    plain.train()
    torch._dynamo.utils.counters.clear()
    compiled = build(torch_compile=True, torch_compile_backend="aot_eager", max_steps=2)
    compiled.train()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0  # it was compiled
    first, second = parameters(plain), parameters(compiled)
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-5
    logs = [log["divergence/max"] for log in compiled.state.log_history if "divergence/max" in log]
    assert logs[1] == pytest.approx(plain.state.log_history[1]["divergence/max"], rel=1e-3)
    assert logs[1] > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**BASE, "torch_compile": True}, "torch_compile=True hides the hidden states"),
        ({"use_liger_kernel": True}, "use_liger_kernel=True would give the policy kernels that the base"),
    ],
)
def test_refused(build: Build, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_a_dynamo_backend_of_the_launcher(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    with pytest.raises(ValueError, match="The accelerate config's dynamo backend 'inductor' hides the hidden states"):
        build(**BASE)
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    build(**BASE)


@pytest.mark.parametrize("size", ["cp_size", "sp_size"])
def test_split_texts(build: Build, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ParallelismConfig()
    setattr(config, size, 4)
    with pytest.raises(ValueError, match="does not support sequence-dim parallelism"):  # TRL itself
        build(parallelism_config=config)
    monkeypatch.setenv(f"PARALLELISM_CONFIG_{size.upper()}", "2")
    with pytest.raises(ValueError, match=f"{size}=2 asks for .* parallelism: each process would see a part"):
        build()


def test_asynchronous_rollouts(tiny_model: str, tmp_path: Any) -> None:
    args = object.__new__(AsyncGRPOConfig)  # its own checks need a GPU
    with pytest.raises(TypeError, match=r"args is a AsyncGRPOConfig; .* completions that several policies"):
        DivergenceGRPOTrainer(model=tiny_model, args=args)
