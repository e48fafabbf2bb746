"""Logits of a few tokens at a time, written over the last ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tokenshift.analysis.divergence.lm_head import LMHead

CPU_TILE = 1024
"""Vocabulary rows a product on CPU. `(tile, H) @ (H, n)` and a transposed copy take about half as long as
`(n, H) @ (H, V)` for few tokens n."""

FEW, MANY_TILE = 128, 4096
"""From so many tokens on, `(n, H) @ (H, tile)` straight into the logits is faster on CPU, by tiles of this many
vocabulary rows: a head of another dtype is turned into float32 tile by tile."""

EXACT_TILE = 8192
"""Vocabulary rows a product in float64 on an accelerator."""

TEMPERED = 2**18
"""Logits that a temperature divides at a time on CPU, where they stay in its caches."""


def multiplies_in_tf32() -> bool:
    """Whether CUDA rounds float32 factors to TF32's 10 bits, as `tf32: true` of a training asks for."""
    matmul = torch.backends.cuda.matmul
    precision = getattr(matmul, "fp32_precision", None)  # torch >= 2.9, where reading the older name may raise
    return bool(matmul.allow_tf32) if precision is None else precision == "tf32"


@contextmanager
def whole_float32() -> Iterator[None]:
    """Let CUDA multiply float32 as it is: top-p sets of logits from TF32 would be others."""
    if not multiplies_in_tf32():
        yield
        return
    matmul: Any = torch.backends.cuda.matmul
    newer = hasattr(matmul, "fp32_precision")
    name, exact, rounded = ("fp32_precision", "ieee", "tf32") if newer else ("allow_tf32", False, True)
    setattr(matmul, name, exact)
    try:
        yield
    finally:
        setattr(matmul, name, rounded)


class Projection:
    """An LM head that projects chunks of hidden states into one buffer, as float32.

    Args:
        head: the projection.
        temperature: divides the logits; other than 1, they come relative to their row's largest.
        rows: the longest chunk, in tokens.
        device: where the hidden states are.
    """

    def __init__(self, head: LMHead, temperature: float, rows: int, device: torch.device) -> None:
        self.head, self.temperature = head, temperature
        self._mixed = device.type == "cuda" and head.weight.dtype != torch.float32
        self._weight = head.weight if self._mixed or device.type == "cpu" else head.weight.float()
        self._bias = None if head.bias is None else head.bias.float()
        self._logits = torch.empty(rows, head.vocab_size, dtype=torch.float32, device=device)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states `(n, H)` to logits `(n, V)`, valid until the next call."""
        logits = self._logits[: len(hidden)]
        if self._mixed:  # half inputs, products summed and kept in float32
            torch.mm(hidden.to(self._weight.dtype), self._weight.t(), out_dtype=torch.float32, out=logits)
        elif hidden.device.type == "cpu" and len(hidden) >= FEW:
            states = hidden.float()
            for start in range(0, self.head.vocab_size, MANY_TILE):
                tile = slice(start, start + MANY_TILE)
                torch.mm(states, self._weight[tile].float().t(), out=logits[:, tile])
        elif hidden.device.type == "cpu":
            columns = hidden.float().t().contiguous()  # (H, n)
            for start in range(0, self.head.vocab_size, CPU_TILE):
                tile = slice(start, start + CPU_TILE)
                logits[:, tile] = torch.mm(self._weight[tile].float(), columns).t()
        else:
            with whole_float32():
                torch.mm(hidden.float(), self._weight.t(), out=logits)
        if self._bias is not None:
            logits += self._bias
        if self.head.scale != 1:
            logits *= self.head.scale
        if self.head.softcap is not None:
            logits.div_(self.head.softcap).tanh_().mul_(self.head.softcap)
        if self.temperature == 1:
            return logits
        rows = max(1, TEMPERED // self.head.vocab_size) if logits.device.type == "cpu" else len(logits)
        for part in logits.split(rows):
            # the largest is taken off first: an offset that all logits share would cost the quotients their digits
            part.sub_(part.amax(dim=-1, keepdim=True)).div_(self.temperature)
        return logits


def exact_logits(head: LMHead, hidden: torch.Tensor, temperature: float) -> torch.Tensor:
    """Logits `(n, V)` in float64 arithmetic from hidden states `(n, H)`; slow."""
    rows, size = hidden.double(), CPU_TILE if hidden.device.type == "cpu" else EXACT_TILE
    logits = torch.empty(len(hidden), head.vocab_size, dtype=torch.float64, device=hidden.device)
    for start in range(0, head.vocab_size, size):
        tile = slice(start, start + size)
        torch.mm(rows, head.weight[tile].double().t(), out=logits[:, tile])
    if head.bias is not None:
        logits += head.bias.double()
    logits *= head.scale
    if head.softcap is not None:
        logits.div_(head.softcap).tanh_().mul_(head.softcap)
    if temperature != 1:
        logits.sub_(logits.amax(dim=-1, keepdim=True)).div_(temperature)
    return logits
