"""Counts of what makes a host wait for its device: values that are looked at, and lists that are sent."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

FETCHED = ("_local_scalar_dense", "nonzero", "masked_select", "equal")
"""Operators of aten whose result, or its shape, the host waits for."""


class _Functions(TorchFunctionMode):
    """`tolist` takes values from a CPU's tensor without an operator, and `torch.tensor` sends what it is given."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self._counts = counts

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is torch.Tensor.tolist:
            self._counts["fetched"] += 1
        if function in (torch.tensor, torch.as_tensor) and args and isinstance(args[0], list | tuple):
            self._counts["sent"] += 1
        return function(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self._counts = counts

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = function.overloadpacket.__name__
        masks = name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])
        self._counts["fetched"] += name in FETCHED or masks
        return function(*args, **(kwargs or {}))


@contextmanager
def host_syncs() -> Iterator[Counter[str]]:
    """`fetched`, how often values were taken from a tensor; `sent`, how often a list was made a tensor."""
    counts: Counter[str] = Counter()
    with _Functions(counts), _Operators(counts):
        yield counts
