"""The noise floor of D: how far rounding alone puts the policy from a reference that it has not moved away from."""

from dataclasses import dataclass, field

import torch
from accelerate import Accelerator

METRIC = "divergence/noise_floor"

CLEAR_OF_NOISE = 2.0
"""A mean divergence below this many noise floors is told: half of it, or more, is rounding."""


@dataclass
class NoiseFloor:
    """The mean absolute divergence of the tokens of updates before which the policy has not moved, and of the others.

    Right after the completions were generated, the policy in training is the rollout policy, and before the first
    update it is the base. The divergences of such an update, taken as in any other, are those of one model with itself
    by the two paths that the run compares: the forward pass that trains, and the one that scored the completions. So
    the floor costs no forward pass, and changes no random number.

    Attributes:
        value: the floor in nats, from the first logging window that had such tokens; None before.
    """

    value: float | None = None
    _sums: dict[bool, torch.Tensor] = field(default_factory=dict)  # moved -> (2,): sum of |D|, tokens; float64

    def add(self, divergence: torch.Tensor, moved: bool) -> None:
        """Count divergences `(N,)`; those that are not finite are left out.

        Args:
            moved: whether the policy can differ from the reference.
        """
        size = divergence.abs().double()
        finite = size.isfinite()
        sums = torch.stack([size.where(finite, 0.0).sum(), finite.sum().double()])
        self._sums[moved] = self._sums[moved] + sums if moved in self._sums else sums

    def window_mean(self, accelerator: Accelerator) -> float | None:
        """The mean |D| of this window's tokens of a policy that had moved, over all ranks; None if there were none.

        Sets `value`, if it can; communicates, so every rank must call it; empties the window.
        """
        blank = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
        sums = torch.cat([self._sums.get(moved, blank) for moved in (False, True)])
        self._sums.clear()
        still_sum, still_count, moved_sum, moved_count = accelerator.reduce(sums, reduction="sum").tolist()
        if self.value is None and still_count:
            self.value = still_sum / still_count
        return moved_sum / moved_count if moved_count else None

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
            f"({METRIC}): what is measured, and weighted by, is mostly rounding. Let the policy move further "
            "(learning_rate, num_iterations, steps_per_generation)"
            + (", or compute in float32 (model_init_kwargs={'dtype': 'float32'}, bf16=False)." if short else ".")
        )
