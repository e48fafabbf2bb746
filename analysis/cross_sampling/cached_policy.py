"""A model that decodes rows of a batch, each at its own pace: slots of dropped tokens are masked, not rolled back."""

import inspect
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from tokenshift.analysis.sampling.token_ids import context_length


class CachedPolicy:
    """A model with the cache of a batch of prefixes.

    Args:
        model: a causal LM in eval mode.

    Attributes:
        length: slots in the cache.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.length = model, 0
        self._cache = DynamicCache(config=model.config)
        context = context_length(model.config)
        self._last_position = None if context is None else context - 1
        self._spares = "logits_to_keep" in inspect.signature(model.forward).parameters

    @torch.no_grad()
    def append(self, token_ids: torch.Tensor, mask: torch.Tensor, keep: int) -> torch.Tensor:
        """Append n tokens to each prefix.

        Args:
            token_ids: `(B, n)`.
            mask: bool `(B, length + n)`, whether a slot is a token of the prefix; the new tokens count too.
            keep: the number of last tokens whose logits are wanted.

        Returns:
            Logits `(B, keep, V)` after the last tokens; for `keep` 0 none are made where the model can do without.
        """
        new = token_ids.shape[1]
        # a draft may go beyond the longest response, and is then dropped; learned positions end there
        positions = (mask.long().cumsum(-1) - 1).clamp(min=0, max=self._last_position)[:, -new:]
        spare = {"logits_to_keep": max(keep, 1)} if self._spares else {}
        out = self.model(
            input_ids=token_ids,
            attention_mask=mask.long(),
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            **spare,
        )
        self.length += new
        return out.logits[:, out.logits.shape[1] - keep :]

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some prefixes alone, by their indices `(b,)`."""
        self._cache.batch_select_indices(rows)

    def arrange(self, slots: torch.Tensor) -> None:
        """Keep some slots of each row, by their indices `(B, L)`, in that order."""
        for layer in self._cache.layers:
            for name in ("keys", "values"):
                states = getattr(layer, name)  # (B, heads, l, size)
                index = slots[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
                setattr(layer, name, states.gather(2, index))
        self.length = slots.shape[1]

    def join(self, other: "CachedPolicy", rows: int) -> None:
        """Add the rows of another policy below; the shorter cache gets empty slots on the left, to be masked.

        Args:
            other: a policy of the same model; it may have read nothing.
            rows: the number of its rows.
        """
        length = max(self.length, other.length)
        for mine, theirs in zip(self._cache.layers, other._cache.layers, strict=True):
            for name in ("keys", "values"):
                mine_states, new = getattr(mine, name), getattr(theirs, name)
                new = (
                    mine_states.new_zeros(rows, mine_states.shape[1], 0, mine_states.shape[3]) if new is None else new
                )
                setattr(mine, name, torch.cat([_lengthened(mine_states, length), _lengthened(new, length)]))
        self.length = length


def _lengthened(states: torch.Tensor, length: int) -> torch.Tensor:
    """States `(B, heads, l, size)` with zeros before them, `length` in all."""
    return torch.nn.functional.pad(states, (0, 0, length - states.shape[2], 0))


def masks_slots(model: Any) -> bool:
    """Whether slots of a model's cache may be masked: not with sliding windows, which count slots, or other states."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
