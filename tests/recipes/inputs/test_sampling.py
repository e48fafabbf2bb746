"""The settings that vLLM is given for a model."""

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import LlamaConfig, Phi3Config

from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.recipes.inputs import sampling as inputs


@pytest.mark.parametrize("switches", [True, False])
def test_vllm_reads_as_far_as_the_analysis(switches: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more positions allowed it takes the long rotary factors for short texts too."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [8.0] * 8}
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "max_position_embeddings": 128}
    longrope = Phi3Config(**sizes, original_max_position_embeddings=12, rope_parameters=rope)
    given: dict[str, Any] = {}

    def generator(path: str, revision: str | None, sampling: Sampling, ends: set[int], **options: Any) -> None:
        given.update(options, ends=ends)

    monkeypatch.setattr(inputs, "VLLMGenerator", generator)
    monkeypatch.setattr(inputs, "model_ends", lambda source: {2})
    config = longrope if switches else LlamaConfig(**sizes)
    source: Any = SimpleNamespace(path="m", revision=None, tokenizer=None, base=None, config=config)
    source.trust_remote_code = False
    arguments: Any = SimpleNamespace(use_vllm=True, dtype="float32")
    inputs.generator_maker(source, arguments, Sampling())()
    assert given == {"ends": {2}, "dtype": "float32", "trust_remote_code": False} | (
        {"max_model_len": 12} if switches else {}
    )
