"""Responses sampled from a model, reproducible token by token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from tokenshift.analysis.divergence import check_sampling, log_probabilities
from tokenshift.analysis.drawing import coupled_draw
from tokenshift.analysis.gumbel import Row, place_seed


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled.

    Attributes:
        temperature: divides the logits, > 0.
        top_p: in (0, 1].
        max_new_tokens: longest completion.
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
        """Arguments of `coupled_draw`."""
        return {"top_p": self.top_p, "seed": self.seed}


@dataclass(frozen=True)
class Request:
    """A response that is wanted.

    Attributes:
        row: (problem_id, sample_id).
        prompt_ids: token ids of the prompt.
    """

    row: Row
    prompt_ids: list[int]


class Generator(Protocol):
    """Anything that samples responses."""

    def __call__(self, requests: Sequence[Request]) -> list[list[int]]:
        """Completion token ids of each request, the end token included where the model gave one."""


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Any) -> list[int]:
    """Token ids of a prompt: text, or a conversation, to which the turn that the model answers in is added."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    return list(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False))


def end_tokens(tokenizer: PreTrainedTokenizerBase, model: Any) -> set[int]:
    """Ids that end a completion: the model's generation config's, and the tokenizer's."""
    ends = model.generation_config.eos_token_id
    found = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    return found - {None}


def context_length(config: Any) -> int | None:
    """Tokens that a model of a config can read; None where it names no limit."""
    length: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return length


def until_end(ids: list[int], ends: set[int]) -> list[int]:
    """A row of token ids up to its first end token, that one included."""
    first = next((place for place, token in enumerate(ids) if token in ends), None)
    return ids if first is None else ids[: first + 1]


def padded_left(rows: Sequence[list[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask `(B, T)` int64 of rows side by side."""
    length = max(map(len, rows))
    ids = torch.tensor([[pad] * (length - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


class _CoupledDraw(LogitsProcessor):
    """Leaves the drawn token alone in the scores."""

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
        tokenizer: its.
        sampling: settings; those in the model's generation config are not used, its end tokens are.
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
    """Samples by vLLM, a seed a response.

    Args:
        path: folder or hub name of the model.
        revision: of a hub model.
        tokenizer: the model's.
        sampling: settings.
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
                seed=place_seed(self.sampling.seed, request.row) % 2**31,
                stop_token_ids=sorted(self._ends),
                detokenize=False,
            )
            for request in requests
        ]
        prompts = [{"prompt_token_ids": request.prompt_ids} for request in requests]
        found = self._llm.generate(prompts, params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in found]
