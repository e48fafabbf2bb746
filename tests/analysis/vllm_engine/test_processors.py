"""The adapters to both of vLLM's model runners, on batches made by hand, and the part of vLLM in use."""

import dataclasses
import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tokenshift.analysis.vllm_engine.row_steps import RowRequest, RowSteps

pytestmark = pytest.mark.vllm

VOCABULARY = 11
STEP = "tokenshift.analysis.vllm_engine.generator:draw_step"
SETTINGS = '{"max_new_tokens": 9, "seed": 1, "temperature": 1.0, "top_p": 1.0}'


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int | None], list[int | None]]]:
    """Keys of requests and positions that reach the steps, call by call."""
    from tokenshift.analysis.vllm_engine import pair_model, processors

    calls: list[tuple[list[int | None], list[int | None]]] = []

    class Recorder(RowSteps):
        def __call__(self, logits: Any, requests: Any, positions: Any) -> torch.Tensor:
            assert list(logits) == ["base", "rl"]
            calls.append(([None if request is None else request.key for request in requests], list(positions)))
            return torch.tensor([-1 if position is None else position for position in positions])

    monkeypatch.setattr(processors, "STEPS", Recorder())
    monkeypatch.setitem(pair_model.LOGITS, "base", torch.zeros(1, VOCABULARY))
    monkeypatch.setitem(pair_model.LOGITS, "rl", torch.zeros(1, VOCABULARY))
    return calls


def config(architecture: str) -> Any:
    return SimpleNamespace(model_config=SimpleNamespace(architecture=architecture))


def params(key: int | None, offset: int = 0) -> Any:
    request = None if key is None else RowRequest(key, (key, 0), offset, STEP, SETTINGS)
    return SimpleNamespace(extra_args=None if request is None else request.argument)


def buffer(values: list[int]) -> Any:
    return SimpleNamespace(np=np.array(values, dtype=np.int32))


def context(slots: list[int], at: list[int]) -> Any:
    """A step of vLLM's V2 runner with one row per request, whose last read token lies at a position."""
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext

    mapping = torch.tensor(slots)
    return LogitsContext(
        expanded_idx_mapping=mapping,
        idx_mapping=mapping,
        idx_mapping_np=mapping.numpy(),
        expanded_local_pos=torch.zeros_like(mapping),
        input_ids=torch.zeros_like(mapping),
        pos=torch.tensor(at),
        seq_lens_upper_bound_np=np.array(at) + 1,
    )


def test_positions_in_the_v2_runner(seen: list[Any]) -> None:
    from tokenshift.analysis.vllm_engine.processors import StepsV2

    # slot 0: prompt of 5; slot 1: prompt of 4 that holds 3 tokens of the completion; slot 2: preempted after 6 tokens
    states = SimpleNamespace(prompt_len=buffer([5, 4, 3, 2]), prefill_len=buffer([5, 4, 9, 2]))
    processor = StepsV2(config("TokenshiftPairLlamaForCausalLM"), states)
    assert [processor.add_request(slot, params(slot + 10, offset)) for slot, offset in ((0, 0), (1, 3), (2, 0))] == [
        True
    ] * 3
    assert processor.add_request(3, params(None)) is False
    logits = torch.randn(4, VOCABULARY)
    before = logits.clone()
    out = processor.apply(logits, context([2, 0, 3, 1], [5, 4, 7, 3]))
    assert seen[-1] == ([12, 10, None, 11], [None, 0, None, 3])  # slot 2 reads its text anew, and is not at its end
    assert out.isfinite().sum(-1).tolist() == [VOCABULARY, 1, VOCABULARY, 1]
    assert torch.equal(out[[0, 2]], before[[0, 2]])
    processor.apply(torch.randn(3, VOCABULARY), context([0, 1, 2], [5, 4, 8]))
    assert seen[-1] == ([10, 11, 12], [1, 4, 6])
    processor.apply(torch.randn(1, VOCABULARY), context([0], [2]))
    assert seen[-1] == ([10], [None])  # an unfinished prompt
    assert processor.add_request(0, params(None)) is False  # the slot is given to a request that is not ours
    plain = torch.randn(1, VOCABULARY)
    assert processor.apply(plain, context([0], [4])) is plain


def test_positions_in_the_v1_runner(seen: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

    from tokenshift.analysis.vllm_engine import pair_model
    from tokenshift.analysis.vllm_engine.processors import StepsV1

    processor = StepsV1(config("TokenshiftPairLlamaForCausalLM"), torch.device("cpu"), False)
    plain = torch.randn(2, VOCABULARY)
    assert processor.apply(plain) is plain  # a warm-up has no rows
    outputs: list[list[int]] = [[], [7, 7], []]
    added = [
        (0, params(20), [1] * 5, outputs[0]),
        (1, params(21, 3), [1] * 4, outputs[1]),
        (2, params(22), [1] * 9, outputs[2]),
    ]
    processor.update_state(BatchUpdate(3, removed=[], added=added, moved=[]))
    monkeypatch.setitem(pair_model.LOGITS, "positions", torch.tensor([4, 5, 3]))
    processor.apply(torch.randn(3, VOCABULARY))
    assert seen[-1] == ([20, 21, 22], [0, 5, None])  # the third prompt is not read to its end
    outputs[0].append(3)
    processor.update_state(BatchUpdate(2, removed=[1], added=[], moved=[(2, 1, MoveDirectionality.UNIDIRECTIONAL)]))
    monkeypatch.setitem(pair_model.LOGITS, "positions", torch.tensor([5, 8]))
    processor.apply(torch.randn(2, VOCABULARY))
    assert seen[-1] == ([20, 22], [1, 0])
    monkeypatch.setitem(pair_model.LOGITS, "positions", torch.tensor([5]))
    with pytest.raises(ValueError, match="vLLM has moved: 1 rows of logits were made, and 2"):
        processor.apply(torch.randn(2, VOCABULARY))


def test_the_part_of_vllm_in_use_is_where_it_was() -> None:
    """A name that is not found here has moved in another release; `vllm_engine` must follow before it is supported."""
    from vllm import LLM, ModelRegistry, SamplingParams
    from vllm.compilation.backends import set_model_tag
    from vllm.config import ModelConfig, VllmConfig, replace
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP
    from vllm.model_executor.models.registry import _LazyRegisteredModel
    from vllm.v1.sample.logits_processor import BatchUpdate
    from vllm.v1.sample.logits_processor.builtin import process_dict_updates
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState

    def has(function: Any, *names: str) -> None:
        missing = set(names) - set(inspect.signature(function).parameters)
        assert not missing, f"vLLM has moved: {function.__qualname__} takes no {', '.join(sorted(missing))}"

    def holds(owner: Any, *names: str) -> None:
        fields = {field.name for field in dataclasses.fields(owner)}
        missing = set(names) - fields - set(dir(owner))
        assert not missing, f"vLLM has moved: {owner.__qualname__} has no {', '.join(sorted(missing))}"

    has(SamplingParams, "extra_args", "stop_token_ids", "detokenize", "max_tokens")
    has(LLM.collective_rpc, "method")
    has(initialize_model, "vllm_config", "prefix")
    has(set_model_tag, "tag")
    has(process_dict_updates, "req_entries", "batch_update", "new_state")
    has(DefaultModelLoader.Source, "model_or_path", "revision", "prefix")
    has(_LazyRegisteredModel, "module_name", "class_name")
    holds(ModelConfig, "skip_tokenizer_init", "hf_overrides", "head_dtype", "get_hidden_size", "generation_config")
    holds(VllmConfig, "additional_config", "with_hf_config", "quant_config", "use_v2_model_runner")
    holds(BatchUpdate, "added", "removed", "moved")
    holds(LogitsContext, "expanded_idx_mapping", "pos")
    holds(LogitsProcRequestState, "prompt_len", "prefill_len")
    assert callable(replace)
    assert "LlamaForCausalLM" in ModelRegistry.models
    assert isinstance(MODELS_CONFIG_MAP, dict)
