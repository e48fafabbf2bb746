"""Memory that a forward pass without gradients has alive at once beside the weights, by a model of fake tensors."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedConfig

from tokenshift.analysis.divergence.hidden_states import backbone
from tokenshift.analysis.plan.model_sizes import built, fake_mode, sizes_of, told_of, trial_inputs


class ForwardPass:
    """The forward passes of a model of fake tensors.

    Args:
        config: of a causal LM.
        dtype: of its parameters.
        options: further arguments of `from_config`, such as `attn_implementation`.

    Attributes:
        sizes: the model's.

    Raises:
        ValueError: if no model can be built of the config, or it cannot be followed without weights.
    """

    def __init__(self, config: PreTrainedConfig, dtype: torch.dtype, **options: Any) -> None:
        self._mode, self._seen = fake_mode(), dict[tuple[int, int], int]()
        self._config = config
        with told_of(config), self._mode:
            self._model = built(config, dtype, **options).eval()
            self.sizes = sizes_of(self._model)

    def of(self, rows: int, length: int) -> int:
        """Bytes that a pass over so many sequences of so many tokens each has alive at once, without the LM head.

        Raises:
            ValueError: if the model cannot be followed without weights.
        """
        if (rows, length) not in self._seen:
            with told_of(self._config), self._mode, torch.no_grad():
                read = lambda: backbone(self._model)(**trial_inputs(length, rows))  # noqa: E731
                self._seen[rows, length] = most_alive(read)
        return self._seen[rows, length]


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
