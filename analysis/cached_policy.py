"""A model that decodes rows of a batch, each at its own pace: slots of dropped tokens are masked, not rolled back."""

import inspect
from typing import Any

import torch
from transformers import DynamicCache


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
        self._spares = "logits_to_keep" in inspect.signature(model.forward).parameters

    @torch.no_grad()
    def append(self, token_ids: torch.Tensor, mask: torch.Tensor, keep: int) -> torch.Tensor:
        """Append n tokens to each prefix.

        Args:
            token_ids: `(B, n)`.
            mask: bool `(B, length + n)`, which slots are tokens of the prefix, the new ones among them.
            keep: for how many of the last tokens logits are wanted.

        Returns:
            Logits `(B, keep, V)` after the last tokens; for `keep` 0 none are made where the model can do without.
        """
        new = token_ids.shape[1]
        positions = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -new:]
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
        """Go on with some prefixes alone, by their places `(b,)`."""
        self._cache.batch_select_indices(rows)
