"""Responses sampled from a model, reproducible token by token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from tokenshift.analysis.divergence.from_logits import check_sampling, log_probabilities
from tokenshift.analysis.sampling.draws import coupled_draw
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.shared_noise import Row, mixed_seed
from tokenshift.analysis.sampling.token_ids import end_tokens, padded_left, until_end


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled.

    Attributes:
        temperature: divides the logits, > 0.
        top_p: in (0, 1].
        max_new_tokens: tokens of the longest completion.
        seed: of the draws.

    Raises:
        ValueError: for numbers out of range.
    """

    temperature: float = 1.0
    top_p: float = 0.7
    max_new_tokens: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        check_sampling(self.temperature, self.top_p)
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens} must be at least 1.")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed} must be at least 0 and below 2**63.")

    @property
    def draw(self) -> dict[str, Any]:
        """Keyword arguments of `coupled_draw`."""
        return {"top_p": self.top_p, "seed": self.seed}


class Generator(Protocol):
    """Anything that samples responses."""

    def __call__(self, requests: Sequence[Request]) -> list[list[int]]:
        """Completion token ids of each request, the end token included where the model gave one."""


class _CoupledDraw(LogitsProcessor):
    """Draws the next token by common random numbers, and leaves its score as the only finite one."""

    def __init__(self, rows: list[Row], prompt_length: int, sampling: Sampling) -> None:
        self._rows, self._start, self._sampling = rows, prompt_length, sampling

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        positions = [input_ids.shape[1] - self._start] * len(self._rows)
        logp = log_probabilities(scores, temperature=self._sampling.temperature)
        drawn = coupled_draw(logp, self._rows, positions, **self._sampling.draw)
        return torch.full_like(scores, -torch.inf).scatter_(-1, drawn.unsqueeze(-1), 0.0)


class TransformersGenerator:
    """Samples by `generate`; a response depends on its problem, its sample and the seed, not on its batch.

    In a batch of another shape logits differ by rounding, which changes a draw about once in a million tokens.

    Args:
        model: a causal LM in eval mode.
        tokenizer: the model's tokenizer.
        sampling: temperature, top-p, length and seed; of the model's generation config only the end tokens are used.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, sampling: Sampling) -> None:
        self.model, self.tokenizer, self.sampling = model, tokenizer, sampling
        self._ends = end_tokens(tokenizer, model)
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(self._ends, default=0)

    def __call__(self, requests: Sequence[Request]) -> list[list[int]]:
        """Completion ids of each request, all in one batch."""
        ids, mask = padded_left([request.prompt_ids for request in requests], self._pad, self.model.device)
        rows = [request.row for request in requests]
        draw = _CoupledDraw(rows, ids.shape[1], self.sampling)
        config = GenerationConfig(
            do_sample=False,  # the draw is in the scores
            num_beams=1,
            max_new_tokens=self.sampling.max_new_tokens,
            eos_token_id=sorted(self._ends) or None,
            pad_token_id=self._pad,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
        )
        with torch.no_grad():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=config,
                logits_processor=LogitsProcessorList([draw]),
            )
        return [until_end(row, self._ends) for row in out[:, ids.shape[1] :].tolist()]


class VLLMGenerator:
    """Samples by vLLM, with one seed per response.

    Args:
        path: folder or hub name of the model.
        revision: branch, tag or commit of a hub model.
        tokenizer: the model's tokenizer.
        sampling: temperature, top-p, length and seed.
        options: more of `vllm.LLM`'s arguments.
    """

    def __init__(
        self,
        path: str,
        revision: str | None,
        tokenizer: PreTrainedTokenizerBase,
        sampling: Sampling,
        **options: Any,
    ) -> None:
        from vllm import LLM  # an extra

        self.sampling = sampling
        self._ends = {tokenizer.eos_token_id} - {None}
        self._llm = LLM(model=path, revision=revision, seed=sampling.seed, **options)

    def __call__(self, requests: Sequence[Request]) -> list[list[int]]:
        """Completion ids of each request; vLLM batches them itself."""
        from vllm import SamplingParams

        params = [
            SamplingParams(
                temperature=self.sampling.temperature,
                top_p=self.sampling.top_p,
                max_tokens=self.sampling.max_new_tokens,
                seed=mixed_seed(self.sampling.seed, request.row) % 2**31,
                stop_token_ids=sorted(self._ends),
                detokenize=False,
            )
            for request in requests
        ]
        prompts = [{"prompt_token_ids": request.prompt_ids} for request in requests]
        outputs = self._llm.generate(prompts, params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]
