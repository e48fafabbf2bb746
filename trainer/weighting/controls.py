"""Changes to a batch's weights after they are computed: the honest controls, and normalisation.

"The batch" is what one backward pass sees: the micro-batches of all ranks together. Every function takes this rank's
valid tokens' weights `(n,)`, may communicate, must be called on every rank, and returns `(n,)`.
"""

import numpy as np
import torch
from accelerate import Accelerator


def gather_ragged(accelerator: Accelerator, values: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Concatenate 1-D tensors of different lengths over ranks.

    Returns:
        All ranks' values in rank order `(sum of n,)`, and the offset of this rank's own in it.
    """
    if accelerator.num_processes == 1:
        return values, 0
    counts = accelerator.gather(torch.tensor([values.numel()], device=values.device)).tolist()
    padded = accelerator.pad_across_processes(values, dim=0)  # (max n,)
    chunks = accelerator.gather(padded).view(accelerator.num_processes, -1)  # (ranks, max n)
    everyone = torch.cat([chunk[:count] for chunk, count in zip(chunks, counts, strict=True)])
    return everyone, sum(counts[: accelerator.process_index])


def global_mean(accelerator: Accelerator, weights: torch.Tensor) -> torch.Tensor:
    """Mean over all ranks' tokens, a scalar tensor; 1 where no rank has a token."""
    totals = torch.stack([weights.double().sum(), weights.new_tensor(weights.numel(), dtype=torch.float64)])
    total, count = accelerator.reduce(totals, reduction="sum")
    return (total / count if count > 0 else torch.ones_like(total)).to(weights.dtype)


def shuffle_weights(accelerator: Accelerator, weights: torch.Tensor, seed: int, step: int) -> torch.Tensor:
    """The same weights on other tokens: a permutation over the valid tokens of all ranks, given by `seed` and `step`.

    A generator of its own, so that the run's other random numbers are those of the run without the control.
    """
    everyone, offset = gather_ragged(accelerator, weights)
    state = int(np.random.SeedSequence([seed, step]).generate_state(1, dtype=np.uint64)[0] >> np.uint64(1))
    permutation = torch.randperm(everyone.numel(), generator=torch.Generator().manual_seed(state))
    return everyone[permutation[offset : offset + weights.numel()].to(everyone.device)]


def mean_weights(accelerator: Accelerator, weights: torch.Tensor) -> torch.Tensor:
    """Every weight set to the batch's mean weight: the step size of the variant without its targeting."""
    return global_mean(accelerator, weights).expand_as(weights)


def normalize_weights(accelerator: Accelerator, weights: torch.Tensor) -> torch.Tensor:
    """Weights divided by their mean over the batch, so that the step size is the baseline's; unchanged if it is 0."""
    mean = global_mean(accelerator, weights)
    return weights / torch.where(mean > 0, mean, torch.ones_like(mean))
