"""Two policies decoding together, token by token: the plain way, which is also what faster ways are tested against.

At each position both see the same prefix. Where a criterion says so the token is the intervention's draw, else the
primary's; both draws share one random number (arXiv 2603.22446, section 4).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedTokenizerBase

from tokenshift.analysis.divergence import js_divergence, log_probabilities
from tokenshift.analysis.drawing import coupled_draw
from tokenshift.analysis.generation import Request, Sampling, end_tokens, padded_left

Switch = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From the primary's and the intervention's log-probabilities `(B, V)` to where to intervene, bool `(B,)`."""


@dataclass(frozen=True)
class MixedResponse:
    """A response of two policies.

    Attributes:
        completion_ids: T token ids, the end token included where there is one.
        switched: T times whether the intervention drew.
        primary_ids: what the primary would have drawn there.
    """

    completion_ids: list[int]
    switched: list[bool]
    primary_ids: list[int]


def js_above(epsilon: float, *, top_p: float = 1.0) -> Switch:
    """Intervene where JS between the policies, truncated to `top_p`, is above `epsilon` nats."""
    return lambda primary, intervention: js_divergence(primary, intervention, top_p=top_p) > epsilon


class CachedPolicy:
    """A model with the cache of a batch of prefixes.

    Args:
        model: a causal LM in eval mode.
        input_ids, attention_mask: `(B, T)`, padded on the left.

    Attributes:
        logits: of the next tokens, `(B, V)`.
    """

    def __init__(self, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> None:
        self.model, self._mask = model, attention_mask
        self.logits: torch.Tensor
        self._cache = DynamicCache(config=model.config)
        self._forward(input_ids, (attention_mask.cumsum(-1) - 1).clamp(min=0))

    def step(self, token_ids: torch.Tensor) -> None:
        """Append a token `(B,)` to each prefix."""
        positions = self._mask.sum(-1, keepdim=True)
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
        self._forward(token_ids.unsqueeze(-1), positions)

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some prefixes alone, by their places `(b,)`."""
        self._cache.batch_select_indices(rows)
        self._mask, self.logits = self._mask[rows], self.logits[rows]

    @torch.no_grad()
    def _forward(self, input_ids: torch.Tensor, positions: torch.Tensor) -> None:
        out = self.model(
            input_ids=input_ids,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
        )
        self.logits = out.logits[:, -1]


def mixed_responses(
    primary: Any,
    intervention: Any,
    requests: Sequence[Request],
    tokenizer: PreTrainedTokenizerBase,
    sampling: Sampling,
    switch: Switch,
) -> list[MixedResponse]:
    """A response to each request, all decoded side by side.

    Args:
        primary, intervention: causal LMs in eval mode on one device, of one tokenizer.
        requests: what is wanted; a response depends on its row and the seed, not on the others.
        tokenizer: the models'.
        sampling: settings of both.
        switch: where to intervene; it sees distributions at the sampling's temperature, not truncated.
    """
    ends = end_tokens(tokenizer, primary) | end_tokens(tokenizer, intervention)
    shared = min(model.config.get_text_config().vocab_size for model in (primary, intervention))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(ends, default=0)
    ids, mask = padded_left([request.prompt_ids for request in requests], pad, primary.device)
    policies = [CachedPolicy(model, ids, mask) for model in (primary, intervention)]
    found = [MixedResponse([], [], []) for _ in requests]
    alive = list(range(len(requests)))
    for position in range(sampling.max_new_tokens):
        logits = [policy.logits[:, :shared] for policy in policies]
        wide = [log_probabilities(each, temperature=sampling.temperature) for each in logits]
        places = [requests[row].row for row in alive], [position] * len(alive)
        own, other = (coupled_draw(each, *places, **sampling.draw) for each in logits)  # (b,)
        switched = switch(*wide)
        tokens = torch.where(switched, other, own)
        for row, token, did, kept in zip(alive, tokens.tolist(), switched.tolist(), own.tolist(), strict=True):
            found[row].completion_ids.append(token)
            found[row].switched.append(did)
            found[row].primary_ids.append(kept)
        going = [place for place, token in enumerate(tokens.tolist()) if token not in ends]
        if not going or position + 1 == sampling.max_new_tokens:
            break
        if len(going) < len(alive):
            rows = torch.tensor(going, device=ids.device)
            for policy in policies:
                policy.keep(rows)
            alive, tokens = [alive[place] for place in going], tokens[rows]
        for policy in policies:
            policy.step(tokens)
    return found


class MixedGenerator:
    """`mixed_responses` where a generator is wanted; arguments as there."""

    def __init__(
        self,
        primary: Any,
        intervention: Any,
        tokenizer: PreTrainedTokenizerBase,
        sampling: Sampling,
        switch: Switch,
    ) -> None:
        self.primary, self.intervention, self.tokenizer = primary, intervention, tokenizer
        self.sampling, self.switch = sampling, switch

    def __call__(self, requests: Sequence[Request]) -> list[list[int]]:
        """Completion ids of each request, all in one batch."""
        arguments = (self.primary, self.intervention, requests, self.tokenizer, self.sampling, self.switch)
        return [response.completion_ids for response in mixed_responses(*arguments)]
