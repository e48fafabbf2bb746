"""Decoding as it is defined: one response at a time, read from its first token on, without cache and padding."""

from types import SimpleNamespace
from typing import Any

import torch

from tokenshift.analysis.cross_sampling.intervention import CrossResponse
from tokenshift.analysis.sampling.draws import coupled_draw
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.requests import Request

END = 2

TOKENIZER: Any = SimpleNamespace(eos_token_id=END, pad_token_id=0)
"""The part of a tokenizer that sampling needs."""

UNEQUAL = [
    Request((n, 0), [(7 * n + 11 * k) % 70 + 5 for k in range(size)]) for n, size in enumerate((14, 3, 9, 1, 9))
]
"""Requests whose prompts have several lengths, one of them twice."""


def next_token(model: Any, request: Request, completion: list[int], sampling: Sampling) -> int:
    """The token that a model draws after a completion so far."""
    ids = torch.tensor([request.prompt_ids + completion])
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, -1:].float()
    logp = torch.log_softmax(logits / sampling.temperature, -1)
    return int(coupled_draw(logp, [request.row], [len(completion)], **sampling.draw))


def cacheless(model: Any, request: Request, sampling: Sampling) -> list[int]:
    """The completion of a request."""
    completion: list[int] = []
    while len(completion) < sampling.max_new_tokens and END not in completion:
        completion.append(next_token(model, request, completion, sampling))
    return completion


def wrong_draws(responses: list[CrossResponse], primary: Any, intervention: Any, sampling: Sampling) -> int:
    """Tokens of cross-sampled responses that are not the draw of the policy that was chosen."""
    return sum(
        next_token(
            intervention if response.switched[position] else primary,
            Request((response.problem_id, response.sample_id), response.prompt_ids),
            response.completion_ids[:position],
            sampling,
        )
        != token
        for response in responses
        for position, token in enumerate(response.completion_ids)
    )
