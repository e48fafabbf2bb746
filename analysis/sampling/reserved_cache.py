"""Caches of keys and values with room for tokens to come: a token is written to its slot, and no other one is copied.

The caches of transformers either grow by concatenation, which copies every token for each new one, or are static, of
one length from the beginning: attention then goes over slots that hold nothing yet. Here buffers have room at their
end, and attention is given the slots that are written.
"""

import weakref
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from tokenshift.analysis.divergence.placement import input_device
from tokenshift.analysis.sampling.plain_reading import agree, remembered, takes, trial_rows

FEWEST, SHARE = 32, 4
"""Slots that a buffer has to spare when it is made: the first number, or one for every few that are written."""


class ReservedLayer(DynamicLayer):
    """The keys and values of a layer, which are the first slots of buffers.

    Whoever sets `keys` and `values` to other tensors may do so: they are copied to new buffers when a token is added.
    The old buffers are free then, unless somebody else has views of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._views: dict[str, weakref.ref[torch.Tensor]] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add tokens, `(B, heads, n, size)`; all keys and values, `(B, heads, l + n, size)`, which are views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = self._extended("keys", key_states), self._extended("values", value_states)
        return self.keys, self.values

    def _extended(self, name: str, new: torch.Tensor) -> torch.Tensor:
        old: torch.Tensor = getattr(self, name)
        start = old.shape[2] if old.dim() == new.dim() else 0  # a new layer has `tensor([])`
        if start and (old.shape[:2] != new.shape[:2] or old.dtype != new.dtype):
            raise ValueError(
                f"{tuple(new.shape)} of {new.dtype} do not go on from {tuple(old.shape)} of {old.dtype}: rows, heads "
                "and dtype of a cache stay as they are."
            )
        end = start + new.shape[2]
        is_own = name in self._views and self._views[name]() is old
        if is_own and (slots := old.stride(1) // new.shape[3]) >= end:
            buffer = old.as_strided((*old.shape[:2], slots, new.shape[3]), old.stride())
        else:
            buffer = new.new_empty(*new.shape[:2], _slots(end), new.shape[3])
            if start:
                buffer[:, :, :start] = old
        buffer[:, :, start:end] = new
        view = buffer[:, :, :end]
        self._views[name] = weakref.ref(view)
        return view


def _slots(written: int) -> int:
    """The slots of a buffer that is made when so many are to be written."""
    return written + max(FEWEST, written // SHARE)


def slots_for(first: int, last: int) -> int:
    """The slots of a layer's buffers when tokens were added to the first ones, one at a time, up to the last.

    Args:
        first, last: numbers of tokens.
    """
    slots = _slots(first)
    while slots < last:
        slots = _slots(slots + 1)
    return slots


def reserved_cache(config: Any) -> DynamicCache:
    """An empty cache for a model of a config: layers of keys and values of all tokens have room, others are their own.

    Windows and recurrent states do not grow with the text.
    """
    cache = DynamicCache(config=config)
    cache.layers = [ReservedLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def cache_for(model: Any) -> DynamicCache:
    """An empty cache: a `reserved_cache`, or one that grows by concatenation where the model's code needs that."""
    return reserved_cache(model.config) if has_room(model) else DynamicCache(config=model.config)


def has_room(model: Any) -> bool:
    """Whether a model's logits with a `reserved_cache` are those with a cache that grows; tried once per model.

    Attention that asks for keys and values without gaps in memory raises an error.

    Args:
        model: a causal LM in eval mode.
    """
    return takes(model, "past_key_values") and remembered(model, "cache with room", lambda: _same_logits(model))


@torch.no_grad()
def _same_logits(model: Any) -> bool:
    ids = torch.tensor(trial_rows(model, (6, 6)), device=input_device(model))
    seen = []
    try:
        for cache in (DynamicCache(config=model.config), reserved_cache(model.config)):
            steps = ids.split([4, 1, 1], dim=1)
            read = [model(input_ids=step, past_key_values=cache, use_cache=True).logits[:, -1] for step in steps]
            seen.append(torch.cat(read))
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever a model's own code raises
        return False
    return agree(seen[1], seen[0], model)


def reserves_all(model: Any) -> bool:
    """Whether all states of a model are keys and values in a `reserved_cache`."""
    return has_room(model) and all(type(layer) is ReservedLayer for layer in reserved_cache(model.config).layers)
