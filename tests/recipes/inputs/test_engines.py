"""Engines that cannot be used are refused before a model is loaded."""

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import LlamaConfig

from tokenshift.analysis.vllm_engine import installation
from tokenshift.recipes.inputs import engines
from tokenshift.recipes.inputs.engines import check_engine, check_engine_arguments, engine_facts, engine_without_effect
from tokenshift.recipes.jobs.analysis.cross_sampling import CrossArguments
from tokenshift.recipes.jobs.analysis.evaluation import EvaluationArguments


def arguments(**fields: Any) -> Any:
    values: dict[str, Any] = {
        "engine": "vllm",
        "vllm_tensor_parallel_size": 1,
        "vllm_gpu_memory_utilization": None,
        "vllm_max_model_length": None,
        "vllm_runner": "v1",
        "vllm_enforce_eager": False,
    }
    return SimpleNamespace(**(values | fields))


def source(base: str | None = None) -> Any:
    config = LlamaConfig(max_position_embeddings=64)
    return SimpleNamespace(name="mine", path="mine", revision=None, base=base, config=config, trust_remote_code=False)


@pytest.fixture
def tested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "installed_version", lambda: "0.32.0")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"vllm_runner": "v3"}, "vllm_runner='v3' is not known"),
        ({"vllm_tensor_parallel_size": 0}, "vllm_tensor_parallel_size=0 must be at least 1"),
        ({"vllm_gpu_memory_utilization": 2.0}, r"vllm_gpu_memory_utilization=2.0 must lie in \(0, 1\]"),
    ],
)
def test_options_that_cannot_be(fields: dict[str, Any], said: str, tested: None) -> None:
    with pytest.raises(ValueError, match=said):
        check_engine_arguments(arguments(**fields))
    check_engine_arguments(arguments())


@pytest.mark.parametrize(
    ("fields", "base", "said"),
    [
        ({}, "org/base", "engine='vllm' cannot be with the adapter 'mine'"),
        ({"vllm_max_model_length": 65}, None, "vllm_max_model_length=65, but 'mine' reads 64 tokens: lower it"),
        ({"vllm_max_model_length": 29}, None, "vllm_max_model_length=29, but the longest prompt and its response may"),
    ],
)
def test_models_that_do_not_fit(fields: dict[str, Any], base: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_engine(arguments(**fields), "float32", [source(base)], 30, pair=False)


def test_without_vllm_the_other_engine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "installed_version", lambda: None)
    with pytest.raises(ValueError, match=r"^engine='vllm' needs vLLM 0\.32, .* or use engine='transformers'\.$"):
        check_engine_arguments(arguments())
    check_engine_arguments(arguments(engine="transformers"))
    assert engine_facts(arguments(engine="draft")) == {}


def test_metadata_have_the_version_and_the_runner(tested: None) -> None:
    assert engine_facts(arguments()) == {"vllm": "0.32.0", "vllm_runner": "v1"}


def test_options_of_the_other_engine_have_no_effect() -> None:
    assert set(engine_without_effect("transformers")) == set(engines.VLLM_ARGUMENTS)
    placed = {"attn_implementation", "device_map", "offload_folder", "one_model_at_a_time"}
    assert set(engine_without_effect("vllm")) == placed


def test_each_recipe_has_its_engines() -> None:
    assert CrossArguments(engine="transformers").engine == "tree"
    assert set(CrossArguments().engines) == set(engines.ENGINE_NAMES)
    with pytest.raises(ValueError, match="engine='draft' is not known; choose transformers or vllm"):
        EvaluationArguments(engine="draft")
    with pytest.raises(ValueError, match="give one"):
        EvaluationArguments(engine="vllm", use_vllm=True)
