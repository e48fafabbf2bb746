"""Responses sampled from a model, reproducible token by token."""

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from tokenshift.analysis.checks import check_whole
from tokenshift.analysis.divergence.from_logits import check_sampling, log_probabilities
from tokenshift.analysis.divergence.hidden_states import model_name
from tokenshift.analysis.divergence.placement import input_device
from tokenshift.analysis.sampling.draws import coupled_draw
from tokenshift.analysis.sampling.folder_settings import report_unused_settings, without_folder_settings
from tokenshift.analysis.sampling.plain_reading import check_causal, is_right, next_logits, trial_rows
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.reserved_cache import reserved_cache, reserves_all
from tokenshift.analysis.sampling.shared_noise import Row, mixed_seed
from tokenshift.analysis.sampling.token_ids import check_context, end_tokens, padded_left, until_end


@dataclass(frozen=True)
class Sampling:
    """Settings of sampling.

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
        check_whole("max_new_tokens", self.max_new_tokens)
        if not isinstance(self.seed, numbers.Integral) or not 0 <= self.seed < 2**63:
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

    def __init__(self, rows: Sequence[Row], prompt_length: int, sampling: Sampling) -> None:
        self._rows, self._start, self._sampling = rows, prompt_length, sampling

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        positions = [input_ids.shape[1] - self._start] * len(self._rows)
        logp = log_probabilities(scores, temperature=self._sampling.temperature)
        drawn = coupled_draw(logp, self._rows, positions, **self._sampling.draw)
        return torch.full_like(scores, -torch.inf).scatter_(-1, drawn.unsqueeze(-1), 0.0)


class _GivenTokens(LogitsProcessor):
    """Makes `generate` go on with tokens that are given, and keeps the logits that it saw, `(B, V)` per step."""

    def __init__(self, tokens: Sequence[list[int]], prompt_length: int) -> None:
        self._tokens, self._start, self.seen = tokens, prompt_length, list[torch.Tensor]()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.seen.append(scores.clone())
        step = input_ids.shape[1] - self._start
        ids = torch.tensor([[tokens[step]] for tokens in self._tokens], device=scores.device)
        return torch.full_like(scores, -torch.inf).scatter_(-1, ids, 0.0)


def _generate(
    model: Any, prompts: Sequence[list[int]], pad: int, processor: LogitsProcessor, ends: set[int], length: int
) -> list[list[int]]:
    """Completions of prompts by `generate`, at most `length` tokens each; nothing of the model's folder has a say."""
    ids, mask = padded_left(prompts, pad, input_device(model))
    config = GenerationConfig(
        do_sample=False,  # the draw is in the scores
        num_beams=1,
        max_new_tokens=length,
        eos_token_id=sorted(ends) or None,
        pad_token_id=pad,
    )
    cache = {"past_key_values": reserved_cache(model.config)} if reserves_all(model) else {}
    with torch.no_grad(), without_folder_settings(model):
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=LogitsProcessorList([processor]),
            **cache,
        )
    return [until_end(row, ends) for row in out[:, ids.shape[1] :].tolist()]


def _generates_rightly(model: Any, pad: int, *, padded: bool) -> bool:
    """Whether `generate` sees the model's own logits, in batches with padding or in those of equally long prompts."""

    def trial(model: Any, more: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = trial_rows(model, (5 + more, 9 + more) if padded else (6 + more, 6 + more))
        prompts, given = [row[:-3] for row in rows], [row[-3:] for row in rows]
        processor = _GivenTokens(given, max(map(len, prompts)))
        _generate(model, prompts, pad, processor, set(), 3)
        plain = [
            next_logits(model, [prompt + tokens[:n] for prompt, tokens in zip(prompts, given, strict=True)])
            for n in range(3)
        ]
        return torch.cat(processor.seen), torch.cat(plain)

    return is_right(model, "generate with padding" if padded else "generate without padding", trial)


class TransformersGenerator:
    """Samples by `generate`; a response depends on its problem, its sample and the seed, not on its batch.

    In a batch of another shape logits differ by rounding, which changes a draw about once in a million tokens in
    float32, and more often in shorter dtypes. A model that padding would change is given prompts of one length at a
    time; a model that its cache would change is read from the first token again for each token, which is slow.

    Args:
        model: a causal LM in eval mode.
        tokenizer: the model's tokenizer.
        sampling: temperature, top-p, length and seed; of the model's generation config only the end tokens are used.

    Raises:
        ValueError: at the first batch, for a model that is not causal; at a batch, for responses that the model has no
            positions for.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, sampling: Sampling) -> None:
        self.model, self.tokenizer, self.sampling = model, tokenizer, sampling
        self._ends = end_tokens(tokenizer, model)
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(self._ends, default=0)
        report_unused_settings(model)

    def __call__(self, requests: Sequence[Request]) -> list[list[int]]:
        """Completion ids of each request, all in one batch."""
        check_context(
            self.model.config,
            [len(request.prompt_ids) for request in requests],
            self.sampling.max_new_tokens,
            model=f"The model {model_name(self.model)!r}",
            setting="max_new_tokens",
        )
        check_causal(self.model)
        if _generates_rightly(self.model, self._pad, padded=True):
            return self._batch(requests)
        if not _generates_rightly(self.model, self._pad, padded=False):
            return self._reread(requests)
        by_length: dict[int, list[int]] = {}
        for index, request in enumerate(requests):
            by_length.setdefault(len(request.prompt_ids), []).append(index)
        completions: dict[int, list[int]] = {}
        for indices in by_length.values():
            completions.update(zip(indices, self._batch([requests[index] for index in indices]), strict=True))
        return [completions[index] for index in range(len(requests))]

    def _batch(self, requests: Sequence[Request]) -> list[list[int]]:
        """Completion ids of requests, side by side."""
        prompts = [request.prompt_ids for request in requests]
        draw = _CoupledDraw([request.row for request in requests], max(map(len, prompts)), self.sampling)
        return _generate(self.model, prompts, self._pad, draw, self._ends, self.sampling.max_new_tokens)

    def _reread(self, requests: Sequence[Request]) -> list[list[int]]:
        """Completion ids of requests, without a cache."""
        completions: list[list[int]] = [[] for _ in requests]
        going = list(range(len(requests)))
        for position in range(self.sampling.max_new_tokens):
            logits = next_logits(self.model, [requests[index].prompt_ids + completions[index] for index in going])
            logp = log_probabilities(logits, temperature=self.sampling.temperature)
            rows = [requests[index].row for index in going]
            drawn = coupled_draw(logp, rows, [position] * len(going), **self.sampling.draw).tolist()
            for index, token in zip(going, drawn, strict=True):
                completions[index].append(token)
            going = [index for index, token in zip(going, drawn, strict=True) if token not in self._ends]
            if not going:
                break
        return completions


class VLLMGenerator:
    """Samples by vLLM, with one seed per response.

    Args:
        path: folder or hub name of the model.
        revision: branch, tag or commit of a hub model.
        sampling: temperature, top-p, length and seed.
        ends: token ids that end a completion; no others do, whatever the model's files name.
        options: more of `vllm.LLM`'s arguments.
    """

    def __init__(
        self,
        path: str,
        revision: str | None,
        sampling: Sampling,
        ends: set[int],
        **options: Any,
    ) -> None:
        from vllm import LLM  # an extra

        self.sampling, self._ends = sampling, ends
        # of the model's folder vLLM would take a generation config's settings
        options = {"generation_config": "vllm", **options}
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
                ignore_eos=True,
                stop_token_ids=sorted(self._ends),
                detokenize=False,
            )
            for request in requests
        ]
        prompts = [{"prompt_token_ids": request.prompt_ids} for request in requests]
        outputs = self._llm.generate(prompts, params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    def close(self) -> None:
        """End the engine's processes."""
        self._llm.llm_engine.engine_core.shutdown()
