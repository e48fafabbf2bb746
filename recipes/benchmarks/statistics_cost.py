"""Time and memory of `token_statistics` on hidden states about as peaked as a language model's."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

from tokenshift.analysis import STATISTICS, LMHead, token_statistics

PROJECTIONS = "the two projections"
JS = "token_statistics: js"
ALL = "token_statistics: all outputs, top-p 0.7 included"
BATCH_TOKENS = 8192
"""Tokens of a real batch; the workspace does not grow with them."""
TRL = "TRL's ChunkedDivergenceFunction, beta 0.5, forward"


@dataclass(frozen=True)
class Shapes:
    """The sizes that are measured: N tokens, hidden size H, vocabulary V, dtype of states and heads, device."""

    tokens: int
    hidden: int
    vocabulary: int
    dtype: str
    device: str

    def __str__(self) -> str:
        return f"N {self.tokens}, H {self.hidden}, V {self.vocabulary}, {self.dtype}, {self.device}"

    @property
    def full_logits(self) -> int:
        """Bytes of both models' logits in float32, of `BATCH_TOKENS`, against which the workspace is held."""
        return 2 * 4 * max(self.tokens, BATCH_TOKENS) * self.vocabulary


def default_shapes() -> Shapes:
    """SmolLM2-135M's on CPU, a 7 B model's on an accelerator."""
    if torch.accelerator.is_available():
        return Shapes(8192, 3584, 152064, "bfloat16", str(torch.accelerator.current_accelerator()))
    return Shapes(1024, 576, 49152, "float32", "cpu")


def make_inputs(shapes: Shapes) -> tuple[torch.Tensor, torch.Tensor, LMHead, LMHead, torch.Tensor]:
    """Both models' states and heads, and tokens sampled from the second.

    Entropies are about those of SmolLM2-135M on free text at temperature 1 (quartiles 2.0, 3.2, 4.4 nats): wider than
    in mathematics. 9 of 10 tokens hardly moved.
    """
    generator = torch.Generator().manual_seed(0)
    sharpness = 2.8 + 4.2 * torch.rand(shapes.tokens, 1, generator=generator)
    base = torch.randn(shapes.tokens, shapes.hidden, generator=generator) * sharpness
    moved = (torch.rand(shapes.tokens, 1, generator=generator) < 0.1).float() * 0.3 + 0.003
    rl = base + moved * sharpness * torch.randn(shapes.tokens, shapes.hidden, generator=generator)
    weight = torch.randn(shapes.vocabulary, shapes.hidden, generator=generator) / shapes.hidden**0.5
    dtype = getattr(torch, shapes.dtype)
    base, rl, weight = (tensor.to(shapes.device, dtype) for tensor in (base, rl, weight))
    ids = torch.cat(
        [torch.multinomial((part @ weight.t()).float().softmax(-1), 1).squeeze(1) for part in rl.split(64)]
    )
    return base, rl, LMHead(weight), LMHead(weight.clone()), ids


def statistics_functions(shapes: Shapes) -> dict[str, Callable[[], object]]:
    """The functions that are timed, by name."""
    base, rl, head_base, head_rl, ids = make_inputs(shapes)

    def projections() -> None:
        for start in range(0, shapes.tokens, 256):
            torch.mm(base[start : start + 256], head_base.weight.t())
            torch.mm(rl[start : start + 256], head_rl.weight.t())

    def statistics(outputs: tuple[str, ...]) -> dict[str, torch.Tensor]:
        return token_statistics(base, rl, head_base, head_rl, ids, outputs=outputs, top_p=0.7)

    def trl_jsd() -> None:
        with torch.no_grad():
            ChunkedDivergenceFunction.apply(
                rl, head_rl.weight, None, base, head_base.weight, None, 0.5, 1.0, 1.0, None, 1.0, None
            )

    return {
        PROJECTIONS: projections,
        JS: lambda: statistics(("js",)),
        ALL: lambda: statistics(STATISTICS),
        TRL: trl_jsd,
    }


def peak_bytes(function: Callable[[], object], device: str) -> int:
    """Most bytes in tensors at once beyond those held before; what BLAS takes for itself is not in it."""
    if device != "cpu":
        torch.accelerator.synchronize()
        before = torch.accelerator.memory_allocated()
        torch.accelerator.reset_peak_memory_stats()
        function()
        torch.accelerator.synchronize()
        return torch.accelerator.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    results: Any = profiler.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in events), default=0)
