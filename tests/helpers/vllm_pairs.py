"""Pairs of models in vLLM engines, beside what the project's own engines make of the same requests."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenshift.analysis.cross_sampling.engines import cross_sample
from tokenshift.analysis.cross_sampling.intervention import CrossResponse, Intervention
from tokenshift.analysis.cross_sampling.pair_engine import PairDecoder
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.token_ids import end_tokens
from tokenshift.analysis.token_table.schema import TABLE_SCHEMA

SCORE_TOLERANCE, RELATIVE_TOLERANCE = 1e-5, 3e-5  # KL and log-ratios of rare tokens are up to 18 nats

ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
"""Environment of small engines on a CPU."""

ONE_PROCESS_LESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
"""Environment in which an engine's scheduler runs in the test's process, which saves the imports of another."""


@dataclass
class PairOnDisk:
    """Two folders with models of one tokenizer, and the models, with transformers' attention of a name."""

    base_path: Path
    rl_path: Path
    attention: str | None = None

    def __post_init__(self) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(self.base_path)
        self.base, self.rl = (
            AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation=self.attention).eval()
            for path in (self.base_path, self.rl_path)
        )

    @property
    def ends(self) -> set[int]:
        return end_tokens(self.tokenizer, self.base) | end_tokens(self.tokenizer, self.rl)

    @property
    def vocabulary(self) -> int:
        return min(model.config.get_text_config().vocab_size for model in (self.base, self.rl))

    def reference(
        self, direction: str, plan: Intervention, requests: Sequence[Request], sampling: Sampling
    ) -> list[CrossResponse]:
        """The responses of the lock-step engine to requests."""
        primary = self.base if direction == "forward" else self.rl
        intervention = self.rl if direction == "forward" and plan.sharpening is None else self.base
        options: dict[str, Any] = {"plan": plan, "sampling": sampling, "engine": "lockstep"}
        return cross_sample(primary, intervention, self.tokenizer, requests, **options)

    @contextmanager
    def decoder(self, **options: Any) -> Iterator[PairDecoder]:
        """The pair engine; `options` are those of `EngineOptions`."""
        from tokenshift.analysis.vllm_engine.engine import EngineModel, EngineOptions, VLLMEngine

        for name, value in (ON_CPU | ONE_PROCESS_LESS).items():
            os.environ.setdefault(name, value)
        inspect_in_this_process()
        models = [
            EngineModel(str(path), None, model.config)
            for path, model in ((self.rl_path, self.rl), (self.base_path, self.base))
        ]
        values = {"dtype": "float32", "longest": 200, "memory_share": 0.1, "eager": True} | options
        engine = VLLMEngine(*models, self.ends, EngineOptions(**values))
        try:
            yield PairDecoder(lambda: engine, self.vocabulary)
        finally:
            engine.close()


def inspect_in_this_process() -> None:
    """Let vLLM look at a pair's class in this process, where it would import itself in another at each start.

    It does so to keep CUDA out of the process, which is nothing to a CPU.
    """
    from vllm.model_executor.models import registry

    registry._run_in_subprocess = lambda function: function()


def assert_same(responses: Sequence[CrossResponse], reference: Sequence[CrossResponse]) -> None:
    """Tokens and decisions of all responses are equal, and scores within the tolerances."""
    for names in (("completion_ids",), ("switched", "primary_ids", "intervention_ids")):
        differing = [
            index
            for index, (one, other) in enumerate(zip(responses, reference, strict=True))
            if any(getattr(one, name) != getattr(other, name) for name in names)
        ]
        assert not differing, f"{names} differ in {len(differing)} of {len(reference)} responses"
    for name in ("scores", "js"):
        one, other = (
            torch.tensor([value for response in part for value in getattr(response, name)])
            for part in (responses, reference)
        )
        torch.testing.assert_close(one, other, rtol=RELATIVE_TOLERANCE, atol=SCORE_TOLERANCE, equal_nan=True)


def assert_same_table(table: pa.Table, expected: pa.Table) -> None:
    """Rows and columns are those of another engine: ranks and sets equal, floats within 1e-4 of themselves or 2e-5."""
    assert table.schema.remove_metadata() == expected.schema.remove_metadata() == TABLE_SCHEMA
    for name in TABLE_SCHEMA.names:
        if TABLE_SCHEMA.field(name).type == pa.float32() and not name.startswith("overlap_"):
            values, others = (part[name].to_numpy() for part in (table, expected))
            np.testing.assert_allclose(values, others, rtol=1e-4, atol=2e-5, err_msg=name)
        else:  # a share of the k tokens of two sets is a whole number of them
            assert table[name].to_pylist() == expected[name].to_pylist(), name
