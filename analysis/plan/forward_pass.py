"""Memory that a forward pass without gradients has alive at once beside the weights, by a model of fake tensors."""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedConfig

from tokenshift.analysis.divergence.hidden_states import backbone
from tokenshift.analysis.plan.model_sizes import (
    TRIED_LENGTHS,
    ModelSizes,
    fake_model,
    fitted,
    sizes_of,
    trial_inputs,
)


@dataclass(frozen=True)
class ForwardBytes:
    """Bytes that a forward pass over sequences has alive at once, without the LM head.

    Attributes:
        constant: those that do not depend on the tokens.
        per_token: per token.
        per_pair: per pair of tokens of a sequence: attention's scores, or its masks.
    """

    constant: int
    per_token: int
    per_pair: int

    def of(self, rows: int, length: int) -> int:
        """Bytes of so many sequences of so many tokens each."""
        return self.constant + rows * (length * self.per_token + length**2 * self.per_pair)


def read_model(config: PreTrainedConfig, dtype: torch.dtype, **options: Any) -> tuple[ModelSizes, ForwardBytes]:
    """The sizes of the model that a config describes, and what its forward pass takes.

    Args:
        config: of a causal LM.
        dtype: of its parameters.
        options: further arguments of `from_config`, such as `attn_implementation`.

    Raises:
        ValueError: if no model can be built of the config, or it cannot be followed without weights.
    """
    with fake_model(config, dtype, **options) as model, torch.no_grad():
        model.eval()
        parts = fitted([most_alive(lambda n=tokens: _read(model, n)) for tokens in TRIED_LENGTHS])  # type: ignore[misc]
        return sizes_of(model), ForwardBytes(*parts)


def _read(model: Any, tokens: int) -> None:
    backbone(model)(**trial_inputs(tokens))


def most_alive(call: Callable[[], Any]) -> int:
    """The most bytes that tensors which a call makes have at once; those that are there before do not count."""
    with _Alive() as alive:
        call()
    return alive.most


class _Alive(TorchDispatchMode):
    """Follows the memory of every tensor that an operation makes.

    Attributes:
        now, most: bytes alive now, and the most at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._followed: dict[int, Any] = {}  # storages by their address

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}  # views make no memory
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if storage._cdata not in given and storage._cdata not in self._followed:
                self._follow(storage)
        return out

    def _follow(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()

        def freed(_: Any) -> None:
            del self._followed[address]
            self.now -= size

        self._followed[address] = weakref.ref(storage, freed)
        self.now += size
        self.most = max(self.most, self.now)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
