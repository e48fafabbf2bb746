"""How far the engine that sampled a generation is from the policy in training.

vLLM computes with kernels of its own, and often in lower precision. Its log-probabilities of the sampled tokens are
compared with the trainer's of the same weights. Divergences and weights never see the engine's: they compare the
trainer with itself, before and after updates.
"""

from typing import Any

import torch

ROLLOUT = "rollout"
"""Prefix of the metrics, and name of the values in a logging window."""


def rollout_mismatch(generation: dict[str, Any], mask: torch.Tensor) -> torch.Tensor | None:
    """k3 `(N,)` of KL(engine || trainer), nats, at the valid tokens of a generation; None where it is not known.

    `exp(d) - 1 - d` with d the trainer's log-probability of the sampled token less the engine's; NaN at tokens that
    the engine did not score.

    Args:
        generation: TRL's tensors, with the log-probabilities of the engine (vLLM, or a rollout function that returns
            them) and of the policy that sampled, if TRL has them.
        mask: the valid tokens `(B, T)`, bool.
    """
    engine, trainer = generation.get("sampling_per_token_logps"), generation.get("old_per_token_logps")
    if engine is None or trainer is None:
        return None
    difference = (trainer - engine)[mask].float()
    return torch.expm1(difference) - difference
