"""A model that decodes rows of a batch, each at its own pace: slots of dropped tokens are masked, not rolled back."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

from tokenshift.analysis.divergence.placement import input_device
from tokenshift.analysis.sampling.plain_reading import is_right, next_logits, remembered, takes, trial_rows
from tokenshift.analysis.sampling.reserved_cache import cache_for
from tokenshift.analysis.sampling.token_ids import context_length, padded_left, positions_of

WINDOWS, NO_WINDOWS = ("window", "chunk"), ("max_window_layers", "chunk_size_feed_forward")
"""Words in the names of settings that let attention reach so many slots, and settings with such names that do not."""


class CachedPolicy:
    """A model with the cache of a batch of prefixes.

    Args:
        model: a causal LM in eval mode.

    Attributes:
        length: slots in the cache.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.length = model, 0
        self._cache = cache_for(model)
        context = context_length(model.config)
        self._last_position = None if context is None else context - 1
        self._spares = takes(model, "logits_to_keep")
        self._positions = takes(model, "position_ids")
        self._cache_name = "past_key_values" if takes(model, "past_key_values") else "cache_params"

    @torch.no_grad()
    def append(self, token_ids: torch.Tensor, mask: torch.Tensor, keep: int) -> torch.Tensor:
        """Append n tokens to each prefix.

        Args:
            token_ids: `(B, n)`.
            mask: bool `(B, length + n)`, whether a slot is a token of the prefix; the new tokens count too.
            keep: the number of last tokens whose logits are wanted.

        Returns:
            Logits `(B, keep, V)` after the last tokens, on the device of these; for `keep` 0 none are made where the
            model can do without.
        """
        device, home = token_ids.device, input_device(self.model)
        token_ids, mask = token_ids.to(home), mask.to(home)
        new = token_ids.shape[1]
        options: dict[str, Any] = {self._cache_name: self._cache}
        if self._positions:
            # a draft may go beyond the longest response, and is then dropped; learned positions end there
            options["position_ids"] = positions_of(mask).clamp(min=0, max=self._last_position)[:, -new:]
        if self._spares:
            options["logits_to_keep"] = max(keep, 1)
        seen: torch.Tensor | None = mask.long()
        if self._cache_name == "cache_params":  # a recurrent state: it holds what was read before, without a mask
            seen = None if bool(mask[:, -new:].all()) else mask[:, -new:].long()
        out = self.model(input_ids=token_ids, attention_mask=seen, use_cache=True, **options)
        self.length += new
        logits: torch.Tensor = out.logits[:, out.logits.shape[1] - keep :]
        return logits.to(device)

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some prefixes alone, by their indices `(b,)`."""
        layers: Sequence[Any] = self._cache.layers
        for layer in layers:
            if isinstance(layer, LinearAttentionCacheLayerMixin):
                # its `batch_select_indices`, where there is one, leaves recurrent states as they are
                layer.reorder_cache(rows)  # type: ignore[arg-type]
            else:
                there = layer.keys is not None  # layers may be on several devices
                layer.batch_select_indices(rows.to(layer.keys.device) if there else rows)

    def arrange(self, slots: torch.Tensor) -> None:
        """Keep some slots of each row, by their indices `(B, L)`, in that order."""
        for layer in self._cache.layers:
            for name in ("keys", "values"):
                states = getattr(layer, name)  # (B, heads, l, size)
                index = slots.to(states.device)[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
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


class UncachedPolicy:
    """A model that reads each prefix from its first token on whenever it is asked: slow, and right for every model.

    Prefixes must be equally long and without padding.

    Args:
        model: a causal LM in eval mode.
    """

    def __init__(self, model: Any) -> None:
        self.model, self._rows = model, list[list[int]]()

    def append(self, token_ids: torch.Tensor, mask: torch.Tensor, keep: int) -> torch.Tensor:
        """Append as `CachedPolicy.append` does with `keep` 1 and a mask that is true everywhere."""
        new = token_ids.tolist()
        self._rows = [old + tokens for old, tokens in zip(self._rows or [[] for _ in new], new, strict=True)]
        return next_logits(self.model, self._rows).unsqueeze(1).to(token_ids.device)

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some prefixes alone, by their indices `(b,)`."""
        self._rows = [self._rows[row] for row in rows.tolist()]


def decodes_rightly(model: Any, *, padded: bool) -> bool:
    """Whether a model with a cache gives its own logits in a batch of which rows end.

    Args:
        model: a causal LM in eval mode.
        padded: whether prompts of other lengths are in the batch, with padding on their left.
    """
    if padded:
        return is_right(model, "cache with padding", lambda model, more: _trial(model, (8 + more, 5 + more, 6 + more)))
    return is_right(model, "cache without padding", lambda model, more: _trial(model, (7 + more,) * 3))


def masks_slots(model: Any) -> bool:
    """Whether slots of a model's cache may be masked anywhere, moved and joined with those of other rows.

    They may not with sliding windows, which count slots, nor with states other than keys and values.
    """
    if not remembered(model, "whole attention", lambda: _attends_to_all(model)):
        return False
    return is_right(model, "cache with masked slots", lambda model, more: _masked_trial(model))


def _attends_to_all(model: Any) -> bool:
    """Whether the cache of a model is of keys and values of all tokens, and no setting names a window."""
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=model.config).layers):
        return False
    settings = model.config.get_text_config().to_dict()
    names = [name for name in settings if any(word in name for word in WINDOWS) and name not in NO_WINDOWS]
    return not any(type(settings[name]) is int and settings[name] > 0 for name in names)


def _trial(model: Any, lengths: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of three rows, the second of which ends, decoded while another batch of the model is begun."""
    device = input_device(model)
    rows, prompts = trial_rows(model, lengths), [length - 3 for length in lengths]
    policy = CachedPolicy(model)
    ids, mask = padded_left([row[:size] for row, size in zip(rows, prompts, strict=True)], rows[0][0], device)
    mask = mask.bool()
    seen = [policy.append(ids, mask, keep=1)[:, 0]]
    plain = [next_logits(model, [row[:size] for row, size in zip(rows, prompts, strict=True)])]
    beside, beside_mask = padded_left(trial_rows(model, (4, 4)), rows[0][0], device)
    CachedPolicy(model).append(beside, beside_mask.bool(), keep=1)
    kept = torch.tensor([0, 2], device=device)
    policy.keep(kept)
    mask = mask[kept]
    for step in range(3):
        new = [rows[row][prompts[row] + step] for row in (0, 2)]
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        seen.append(policy.append(torch.tensor(new, device=device).unsqueeze(-1), mask, keep=1)[:, 0])
        plain.append(next_logits(model, [rows[row][: prompts[row] + step + 1] for row in (0, 2)]))
    return torch.cat(seen), torch.cat(plain)


def _masked_trial(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of rows of which drafted tokens are dropped, which another row joins, and whose slots are moved."""
    first, second, third = trial_rows(model, (9, 8, 6))
    wrong, device = first[0], input_device(model)

    def read(policy: CachedPolicy, tokens: list[list[int]], mask: list[list[int]]) -> torch.Tensor:
        ids = torch.tensor(tokens, device=device)
        return policy.append(ids, torch.tensor(mask, dtype=torch.bool, device=device), keep=1)[:, 0]

    policy, joining = CachedPolicy(model), CachedPolicy(model)
    read(policy, [first[:4], [wrong, *second[:3]]], [[1, 1, 1, 1], [0, 1, 1, 1]])
    read(policy, [[first[4], wrong, wrong], [*second[3:5], wrong]], [[1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1]])
    mask = [[1, 1, 1, 1, 1, 0, 0, 1], [0, 1, 1, 1, 1, 1, 0, 1]]
    seen = [read(policy, [[first[5]], [second[5]]], mask)]
    read(joining, [third[:4]], [[1, 1, 1, 1]])
    policy.join(joining, 1)
    mask = [[*row, 1] for row in (*mask, [0, 0, 0, 0, 1, 1, 1, 1])]
    seen.append(read(policy, [[first[6]], [second[6]], [third[4]]], mask))
    slots = torch.sort(torch.tensor(mask), dim=1, stable=True).indices[:, -7:]
    policy.arrange(slots.to(device))
    mask = [[1] * 8, [1] * 8, [0, 0, 1, 1, 1, 1, 1, 1]]
    seen.append(read(policy, [[first[7]], [second[7]], [third[5]]], mask))
    plain = [[first[:6], second[:6]], [first[:7], second[:7], third[:5]], [first[:8], second[:8], third[:6]]]
    return torch.cat(seen), torch.cat([next_logits(model, rows) for rows in plain])
