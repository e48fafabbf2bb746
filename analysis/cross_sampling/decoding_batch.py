"""Rows of a batch that decode at their own pace: those that end make room for others."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tokenshift.analysis.cross_sampling.cached_policy import CachedPolicy, UncachedPolicy
from tokenshift.analysis.divergence.placement import input_device
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.token_ids import padded_left

ADMITTED = 8
"""New requests are begun when one of so many rows is free: each time prompts are read and caches are copied."""


SPARE = 1.5
"""Empty slots are dropped when the caches have more slots than this many times the tokens of the longest row."""


class DecodingBatch:
    """The rows of a batch that are going on, and the caches of the policies that read them.

    Args:
        models: causal LMs.
        pad: a token id to pad with.
        requests: all requests, by their keys: indices, or whatever they are looked up with.
        first: keys of the requests to begin with.
        policy_class: of the policies that read the rows.
        movable: whether slots of the caches may be masked, moved and joined with those of other rows.

    Attributes:
        alive: keys of the requests that are going on.
        pending: `(b,)`, the last token of each, which no policy has read.
        mask: bool `(b, length)`, whether a slot holds a token.
        policies: one per model.
    """

    def __init__(
        self,
        models: Sequence[Any],
        pad: int,
        requests: Sequence[Request] | Mapping[Any, Request],
        first: Sequence[Any],
        policy_class: type[CachedPolicy] | type[UncachedPolicy] = CachedPolicy,
        *,
        movable: bool = True,
    ) -> None:
        self._models, self._pad, self._requests = models, pad, requests
        self._policy_class, self._movable = policy_class, movable
        self.alive: list[Any] = list(first)
        ids, mask = padded_left([requests[row].prompt_ids for row in first], pad, input_device(models[0]))
        self.pending, self.mask = ids[:, -1], mask[:, :-1].bool()
        self._lengths = [len(requests[row].prompt_ids) - 1 for row in first]  # tokens in the mask
        self.policies: list[Any] = [policy_class(model) for model in models]  # without caches none is movable
        if ids.shape[1] > 1:  # all of the prompt but its last token
            for policy in self.policies:
                policy.append(ids[:, :-1], self.mask, keep=0)

    def refill(self, waiting: list[int], batch_size: int) -> None:
        """Begin requests that wait, the last of them first, where enough rows are free."""
        free = min(batch_size - len(self.alive), len(waiting))
        if not self.alive or (free and batch_size - len(self.alive) >= max(1, batch_size // ADMITTED)):
            self.admit([waiting.pop() for _ in range(free)])

    def admit(self, rows: Sequence[Any]) -> None:
        """Begin requests, by their keys, beside the rows that go on; of these there may be some in movable slots."""
        movable = self._movable
        new = DecodingBatch(self._models, self._pad, self._requests, rows, self._policy_class, movable=movable)
        if not self.alive:
            self.alive, self.pending, self.mask, self.policies = new.alive, new.pending, new.mask, new.policies
            self._lengths = new._lengths
            return
        length = max(self.mask.shape[1], new.mask.shape[1])
        masks = [torch.nn.functional.pad(mask, (length - mask.shape[1], 0)) for mask in (self.mask, new.mask)]
        self.mask = torch.cat(masks)
        self.pending = torch.cat([self.pending, new.pending])
        self.alive += new.alive
        self._lengths += new._lengths
        for policy, other in zip(self.policies, new.policies, strict=True):
            policy.join(other, len(rows))

    def go_on(self, kept_lengths: Sequence[int], read: int, going: Sequence[int], last: Sequence[int]) -> None:
        """Go on after the policies have read tokens.

        Args:
            kept_lengths: how many of these tokens stay, for each row.
            read: the number of tokens read.
            going: indices of the rows that go on; a row that is named twice goes on as two.
            last: the last token of each of these, which no policy has read.
        """
        device = self.mask.device
        if all(kept == read for kept in kept_lengths):
            held = torch.ones(len(kept_lengths), read, dtype=torch.bool, device=device)
        else:
            held = torch.arange(read, device=device) < torch.tensor(kept_lengths, device=device).unsqueeze(-1)
        self.mask = torch.cat([self.mask, held], dim=1)
        self._lengths = [length + kept for length, kept in zip(self._lengths, kept_lengths, strict=True)]
        self.pending = torch.tensor(last, dtype=torch.int64, device=device)
        if list(going) != list(range(len(self.alive))):
            rows = torch.tensor(going, dtype=torch.int64, device=device)
            self.mask, self.alive = self.mask[rows], [self.alive[index] for index in going]
            self._lengths = [self._lengths[index] for index in going]
            for policy in self.policies:
                policy.keep(rows)
        self._compact()

    def _compact(self) -> None:
        """Drop slots that no row needs, when they are many."""
        longest = max(self._lengths, default=0)
        if self._movable and longest and self.mask.shape[1] > SPARE * longest:
            order = torch.sort(self.mask.byte(), dim=1, stable=True).indices  # tokens come last, in their order
            slots = order[:, -longest:]
            self.mask = self.mask.gather(1, slots)
            for policy in self.policies:
                policy.arrange(slots)
