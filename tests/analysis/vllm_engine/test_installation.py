"""Messages where vLLM is missing, or has a version that the engine was not tested with."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tokenshift.analysis.vllm_engine import engine, installation
from tokenshift.analysis.vllm_engine.engine import EngineModel, EngineOptions, dtype_of, own_devices
from tokenshift.analysis.vllm_engine.installation import check_installed, chosen_runner


@pytest.mark.parametrize(
    ("version", "words"),
    [(None, "which is not installed"), ("0.31.2", "0.31.2 is installed"), ("0.320.0", "0.320.0 is installed")],
)
def test_a_vllm_that_is_missing_or_untested_is_refused(
    version: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "installed_version", lambda: version)
    with pytest.raises(ValueError, match=rf"^engine='vllm' .*{words}.*pip install") as error:
        check_installed()
    assert "\n" not in str(error.value)


def test_the_tested_version_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "installed_version", lambda: "0.32.1")
    assert check_installed() == "0.32.1"


@pytest.mark.parametrize(("variable", "runner"), [("1", "v2"), ("0", "v1"), ("true", "v2")])
def test_the_runner_is_the_one_asked_for(variable: str, runner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(installation.RUNNER_VARIABLE, variable)
    assert chosen_runner(None) == runner
    assert chosen_runner("v1") == "v1"
    with pytest.raises(ValueError, match="vllm_runner='v3' is not known; choose v1 or v2"):
        chosen_runner("v3")


def test_options_out_of_range_are_refused() -> None:
    for options, words in (
        ({"tensor_parallel_size": 0}, "vllm_tensor_parallel_size=0"),
        ({"memory_share": 1.5}, "vllm_gpu_memory_utilization=1.5"),
        ({"longest": 0}, "vllm_max_model_length=0"),
    ):
        with pytest.raises(ValueError, match=words):
            EngineOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stored", "asked", "dtype"),
    [
        (torch.float32, "auto", "float32"),
        ("bfloat16", "auto", "bfloat16"),
        (None, "auto", "auto"),
        (torch.float32, "bfloat16", "bfloat16"),
    ],
)
def test_a_model_has_its_own_dtype_unless_another_is_asked_for(stored: Any, asked: str, dtype: str) -> None:
    """vLLM itself would make bfloat16 of float32."""
    model = EngineModel("mine", None, SimpleNamespace(dtype=stored))
    assert dtype_of(model, asked) == dtype


def test_each_process_has_gpus_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_devices(0, 2, "4,5,6,7") == "4,5"
    assert own_devices(1, 2, "4,5,6,7") == "6,7"
    monkeypatch.setattr(engine.torch.cuda, "device_count", lambda: 3)
    assert own_devices(2, 1, None) == "2"
    with pytest.raises(ValueError, match=r"needs GPUs 2 to 3 for its engine, and there are 3: start fewer processes"):
        own_devices(1, 2, None)
