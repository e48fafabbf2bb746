"""The noise floor of D: how far rounding alone puts the policy from a reference that it has not moved away from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator

from tokenshift.analysis.thresholds import CLEAR_OF_NOISE

METRIC = "divergence/noise_floor"

ROUNDING, UNMOVED, MOVED = "rounding", "unmoved", "moved"


@contextmanager
def rounded_anew(model: Any, dtype: torch.dtype) -> Iterator[None]:
    """The model's forward passes round otherwise inside: its embeddings are off by at most half a digit of `dtype`.

    That is what the smallest movement of the weights does to every later rounding. The run's random numbers are not
    touched.

    Args:
        model: an unwrapped causal LM, with or without an adapter.
        dtype: the type that it computes in.
    """
    generator = torch.Generator().manual_seed(0)
    size = torch.finfo(dtype).eps / 2

    def nudge(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        signs = torch.randint(0, 2, output.shape, generator=generator).to(output.device) * 2 - 1
        return (output.double() * (1 + size * signs)).to(output.dtype)

    handle = model.get_input_embeddings().register_forward_hook(nudge)
    try:
        yield
    finally:
        handle.remove()


@dataclass
class NoiseFloor:
    """The mean absolute divergence of the policy from itself, and the window's for which the policy had moved.

    The floor is the larger of two means. *Unmoved*: right after the completions were generated the policy in training
    is the rollout policy, and before the first update it is the base, so the divergences of such an update are those
    of one model by the two paths that the run compares. *Rounding*: one forward pass of one micro-batch is made twice,
    and rounds otherwise the second time (`rounded_anew`); where both paths happen to round alike, the first mean is 0,
    but the least movement of the weights brings this one.

    Attributes:
        value: the floor in nats, from the first logging window; None before.
        measured: whether the rounding was measured.
    """

    value: float | None = None
    measured: bool = False
    _sums: dict[str, torch.Tensor] = field(default_factory=dict)  # kind -> (2,): sum of |D|, tokens; float64

    def add(self, divergence: torch.Tensor, kind: str) -> None:
        """Count divergences `(N,)` in nats; those that are not finite are left out.

        Args:
            kind: `ROUNDING`, or whether the policy can differ from the reference, `UNMOVED` or `MOVED`.
        """
        self.measured = self.measured or kind == ROUNDING
        size = divergence.abs().double()
        finite = size.isfinite()
        sums = torch.stack([size.where(finite, 0.0).sum(), finite.sum().double()])
        self._sums[kind] = self._sums[kind] + sums if kind in self._sums else sums

    def window_mean(self, accelerator: Accelerator) -> float | None:
        """The mean |D| of this window's tokens of a policy that had moved, over all ranks; None if there were none.

        Sets `value`, if it can; communicates, so every rank must call it; empties the window.
        """
        blank = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
        sums = torch.stack([self._sums.get(kind, blank) for kind in (ROUNDING, UNMOVED, MOVED)])  # (3, 2)
        self._sums.clear()
        *still, moved = [
            total / count if count else None for total, count in accelerator.reduce(sums, reduction="sum").tolist()
        ]
        means = [mean for mean in still if mean is not None]
        if self.value is None and means:
            self.value = max(means)
        return moved

    def warning(self, mean: float | None, short: bool) -> str | None:
        """One line for a window whose mean |D| is `mean` nats; None where it is clear of the floor.

        Args:
            mean: of the tokens for which the policy had moved; None if there were none.
            short: whether the model computes in less than float32.
        """
        if mean is None or self.value is None or not mean < CLEAR_OF_NOISE * self.value:
            return None
        return (
            f"The mean divergence, {mean:.2g} nats, is not clear of its noise floor, {self.value:.2g} nats "
            f"({METRIC}): D is mostly rounding. Let the policy move further "
            "(learning_rate, num_iterations, steps_per_generation)"
            + (", or compute in float32 (model_init_kwargs={'dtype': 'float32'}, bf16=False)." if short else ".")
        )
