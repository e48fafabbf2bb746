"""Exact statistics of per-token values over a logging window and over all ranks."""

from dataclasses import dataclass, field

import numpy as np
import torch
from accelerate import Accelerator

from tokenshift.analysis.thresholds import HIGH, NEAR_ZERO
from tokenshift.trainer.controls import gather_ragged

ACTIVE = 0.01
"""A weight further than this from 1 counts as active."""


def divergence_metrics(values: np.ndarray) -> dict[str, float]:
    """`divergence/*` of per-token divergences `(N,)` in nats, N > 0; shares are of |D|, since k1 is signed."""
    p50, p90, p95, p99, maximum = np.quantile(values, [0.5, 0.9, 0.95, 0.99, 1.0])
    size = np.abs(values)
    return {
        "divergence/mean": float(values.mean(dtype=np.float64)),
        "divergence/p50": float(p50),
        "divergence/p90": float(p90),
        "divergence/p95": float(p95),
        "divergence/p99": float(p99),
        "divergence/max": float(maximum),
        "divergence/frac_near_zero": float((size < NEAR_ZERO).mean()),
        "divergence/frac_high": float((size > HIGH).mean()),
    }


def weight_metrics(values: np.ndarray) -> dict[str, float]:
    """`advantage_weight/*` of the weights `(N,)` as applied, N > 0; `std` is the population's."""
    return {
        "advantage_weight/mean": float(values.mean(dtype=np.float64)),
        "advantage_weight/std": float(values.std(dtype=np.float64)),
        "advantage_weight/min": float(values.min()),
        "advantage_weight/max": float(values.max()),
        "advantage_weight/frac_active": float((np.abs(values - 1) > ACTIVE).mean()),
    }


@dataclass
class TokenWindow:
    """Per-token values of the steps since the last log, kept whole: a percentile cannot be had from percentiles.

    Attributes:
        divergence: one `(n,)` float32 tensor a micro-step, the valid tokens' divergences (nats).
        weights: the same for the weights applied.
    """

    divergence: list[torch.Tensor] = field(default_factory=list)
    weights: list[torch.Tensor] = field(default_factory=list)

    def metrics(self, accelerator: Accelerator) -> dict[str, float]:
        """Statistics over all ranks' tokens; communicates, so every rank must call it. Empties the window."""
        metrics: dict[str, float] = {}
        for values, summarise in ((self.divergence, divergence_metrics), (self.weights, weight_metrics)):
            if values:  # as many micro-steps on every rank, so all ranks agree on this
                everyone, _ = gather_ragged(accelerator, torch.cat(values))
                if everyone.numel():
                    metrics |= summarise(everyone.cpu().numpy())
            values.clear()
        return metrics
