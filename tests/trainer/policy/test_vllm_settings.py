"""Settings of vLLM that could not work, and which processes sample together."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.tiny_training import Build

from tokenshift.trainer.policy.undisturbed import undisturbed
from tokenshift.trainer.policy.vllm_settings import check_vllm_length, check_vllm_settings, sampling_group


def settings(**fields: Any) -> Any:
    defaults = {"use_vllm": True, "vllm_mode": "colocate", "vllm_max_model_length": None, "use_cpu": False}
    defaults |= {"vllm_tensor_parallel_size": 1, "vllm_enable_sleep_mode": False, "max_completion_length": 16}
    return SimpleNamespace(**{**defaults, **fields})


@pytest.mark.parametrize(
    ("fields", "processes", "on_gpu", "message"),
    [
        ({"vllm_mode": "colocated"}, 1, True, "vllm_mode='colocated' is not known"),
        ({"vllm_tensor_parallel_size": 4}, 6, True, "vllm_tensor_parallel_size=4 does not divide the 6 processes"),
        ({"vllm_tensor_parallel_size": 2}, 1, True, "vllm_tensor_parallel_size=2 does not divide the 1 process of"),
        ({"vllm_mode": "server"}, 1, False, "vllm_mode='server' needs a GPU: TRL sends the policy's weights to the"),
        ({"vllm_enable_sleep_mode": True}, 1, False, "vllm_enable_sleep_mode=True needs a GPU"),
    ],
)
def test_settings_that_could_not_work(fields: dict[str, Any], processes: int, on_gpu: bool, message: str) -> None:
    with pytest.raises(ValueError, match=r"\.$") as raised:
        check_vllm_settings(settings(**fields), processes, on_gpu=on_gpu)
    assert message in str(raised.value)
    check_vllm_settings(settings(use_vllm=False, **fields), processes, on_gpu=on_gpu)


def test_settings_that_work() -> None:
    check_vllm_settings(settings(), 3, on_gpu=False)
    check_vllm_settings(settings(vllm_tensor_parallel_size=2, vllm_enable_sleep_mode=True), 4, on_gpu=True)
    check_vllm_settings(settings(vllm_mode="server", vllm_tensor_parallel_size=4), 6, on_gpu=True)  # the server's own


@pytest.mark.parametrize("field", [{"vllm_mode": "server"}, {"vllm_enable_sleep_mode": True}])
@pytest.mark.skipif(torch.accelerator.is_available(), reason="they work on a GPU")
def test_the_trainer_refuses_them_before_it_loads_a_model(build: Build, field: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs a GPU"):
        build(use_vllm=True, **field)


def test_a_length_that_would_end_completions_early() -> None:
    check_vllm_length(settings(vllm_max_model_length=26), [10, 4])
    check_vllm_length(settings(vllm_max_model_length=None), [10])
    check_vllm_length(settings(vllm_max_model_length=20, vllm_mode="server"), [10])
    with pytest.raises(
        ValueError, match=r"vllm_max_model_length=25 is less than the 26 tokens of a prompt \(10\) and"
    ):
        check_vllm_length(settings(vllm_max_model_length=25), [10, 4])
    with pytest.raises(ValueError, match="vllm_max_model_length=16 is less than the 17 tokens"):
        check_vllm_length(settings(vllm_max_model_length=16))


def trainer_of(rank: int, **fields: Any) -> Any:
    return SimpleNamespace(
        args=settings(**fields), accelerator=SimpleNamespace(process_index=rank), model=torch.nn.Linear(1, 1)
    )


def test_processes_that_share_an_engine_draw_the_same() -> None:
    """vLLM's sampler draws from torch's generator on each of them, for the whole group's completions."""

    def drawn(rank: int, **fields: Any) -> float:
        with undisturbed(trainer_of(rank, **fields), seed=5):
            return float(torch.rand(()))

    shared = [drawn(rank, vllm_tensor_parallel_size=2) for rank in range(4)]
    assert shared[0] == shared[1] != shared[2] == shared[3]
    alone = [drawn(rank) for rank in range(4)]
    assert len(set(alone)) == 4
    assert len({drawn(rank, use_vllm=False, vllm_tensor_parallel_size=2) for rank in range(4)}) == 4
    assert [sampling_group(trainer_of(rank, vllm_tensor_parallel_size=4)) for rank in (3, 4)] == [0, 1]
    assert sampling_group(trainer_of(3, vllm_tensor_parallel_size=4, vllm_mode="server")) == 3
