"""Responses of one model by vLLM, drawn with the project's noise: either engine gives the same response."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import torch

from tokenshift.analysis.divergence.from_logits import log_probabilities
from tokenshift.analysis.sampling.draws import coupled_draw
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.shared_noise import Row
from tokenshift.analysis.vllm_engine.engine import StepRequest, VLLMEngine
from tokenshift.analysis.vllm_engine.row_steps import StepResult

STEP = f"{__name__}:draw_step"


@functools.lru_cache(maxsize=1024)
def _sampling(text: str) -> Sampling:
    return Sampling(**json.loads(text))


def draw_step(
    logits: Mapping[str, torch.Tensor],
    rows: Sequence[Row],
    positions: Sequence[int],
    replaced: Sequence[int],
    settings: str,
) -> StepResult:
    """The tokens that one model draws; a step function of `row_steps`."""
    sampling = _sampling(settings)
    logp = log_probabilities(logits["policy"], temperature=sampling.temperature)
    return StepResult(coupled_draw(logp, rows, positions, **sampling.draw), {})


class EngineGenerator:
    """Samples by a vLLM engine with one model; in float32 the responses are those of `TransformersGenerator`.

    Args:
        start: starts the engine, when the first responses are asked for.
        sampling: temperature, top-p, length and seed.
    """

    def __init__(self, start: Callable[[], VLLMEngine], sampling: Sampling) -> None:
        self._start, self.sampling = start, sampling

    @functools.cached_property
    def engine(self) -> VLLMEngine:
        """The engine."""
        return self._start()

    def __call__(self, requests: Sequence[Request]) -> list[list[int]]:
        """Completion ids of each request; vLLM batches them itself."""
        settings = json.dumps(asdict(self.sampling), sort_keys=True)
        responses = self.engine(
            [StepRequest(request, STEP, settings, self.sampling.max_new_tokens) for request in requests]
        )
        return [response.completion_ids for response in responses]
