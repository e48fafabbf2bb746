"""Exact statistics of per-token values over a logging window and over all ranks."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator

from tokenshift.analysis.divergence.summary import divergence_summary
from tokenshift.analysis.shift.binned_means import entropy_and_position_means
from tokenshift.analysis.thresholds import JS_BINS, POSITION_BINS, js_bins, position_bins
from tokenshift.trainer.weighting.controls import gather_ragged
from tokenshift.trainer.weighting.kinds import KINDS, Kind

ACTIVE = 0.01
"""A value further than this from the one that changes nothing counts as active."""


def _finite(values: np.ndarray, prefix: str) -> tuple[np.ndarray, dict[str, float]]:
    """The finite values, and `{prefix}/non_finite_share` where any of the `(N,)` values is infinite or NaN.

    One overflow among a thousand tokens would otherwise make every mean and percentile infinite or NaN.
    """
    finite = np.isfinite(values)
    if finite.all():
        return values, {}
    return values[finite], {f"{prefix}/non_finite_share": float((~finite).mean())}


def divergence_metrics(values: np.ndarray) -> dict[str, float]:
    """`divergence/*` of per-token divergences `(N,)` in nats, N > 0; shares are of |D|, since k1 is signed.

    All are of the finite values; `divergence/non_finite_share` counts the others, where there are any.
    """
    values, metrics = _finite(values, "divergence")
    if not len(values):
        return metrics
    return metrics | {f"divergence/{name}": value for name, value in divergence_summary(values).items()}


def weight_metrics(values: np.ndarray, kind: Kind = KINDS["multiplier"]) -> dict[str, float]:
    """`advantage_weight/*` of the weights `(N,)` as applied, N > 0, or `advantage_bonus/*` of what is added.

    `std` is the population's; `frac_active` the share of values further than `ACTIVE` from the neutral one, 1 or 0.
    All are of the finite values; `non_finite_share` counts the others, where there are any.
    """
    values, metrics = _finite(values, kind.metric)
    if not len(values):
        return metrics
    return metrics | {
        f"{kind.metric}/mean": float(values.mean(dtype=np.float64)),
        f"{kind.metric}/std": float(values.std(dtype=np.float64)),
        f"{kind.metric}/min": float(values.min()),
        f"{kind.metric}/max": float(values.max()),
        f"{kind.metric}/frac_active": float((np.abs(values - kind.neutral) > ACTIVE).mean()),
    }


class ShiftSums:
    """Sums of entropies by JS and of JS by position, added up over micro-steps, then over all ranks.

    The bins, the means and their names are those of `tokenshift.analysis`, as in the probe's numbers.
    """

    def __init__(self) -> None:
        self._by_js: torch.Tensor | None = None  # (len(JS_BINS), 3): policy entropy, reference entropy, count
        self._by_position = torch.zeros(0)  # (POSITION_BINS, 2): JS, count

    def add(
        self,
        *,
        js: torch.Tensor,
        entropy_reference: torch.Tensor,
        entropy_policy: torch.Tensor,
        position: torch.Tensor,
        length: torch.Tensor,
    ) -> None:
        """Add N tokens; those with a value that is not finite are left out of the sums.

        Args:
            js, entropy_reference, entropy_policy: `(N,)` float32 each, nats.
            position: `(N,)` int64, the token's place in its completion, from 0.
            length: `(N,)` int64, the number of tokens of that completion.
        """
        if self._by_js is None:
            self._by_js = torch.zeros(len(JS_BINS), 3, dtype=torch.float64, device=js.device)
            self._by_position = torch.zeros(POSITION_BINS, 2, dtype=torch.float64, device=js.device)
        by_js = torch.stack([entropy_policy, entropy_reference, torch.ones_like(js)], dim=1).double()
        by_position = torch.stack([js, torch.ones_like(js)], dim=1).double()
        finite = (js + entropy_policy + entropy_reference).isfinite()
        self._by_js.index_add_(0, js_bins(js.nan_to_num()), by_js.where(finite.unsqueeze(1), 0.0))
        bins = position_bins(position, length)
        self._by_position.index_add_(0, bins, by_position.where(finite.unsqueeze(1), 0.0))

    def metrics(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over all ranks' tokens; bins without a token are left out. Communicates; empties the sums."""
        if self._by_js is None:
            return {}
        policy, reference, count = accelerator.reduce(self._by_js, reduction="sum").cpu().numpy().T
        js, tokens = accelerator.reduce(self._by_position, reduction="sum").cpu().numpy().T
        self._by_js = None
        means = entropy_and_position_means((policy, count), (reference, count), (js, tokens), separator="/")
        return {f"divergence_{name}": value for name, value in means.items()}


@dataclass
class TokenWindow:
    """Per-token values of the steps since the last log, kept whole: a percentile cannot be had from percentiles.

    Attributes:
        divergence: one `(n,)` float32 tensor a micro-step, the valid tokens' divergences (nats).
        weights: the same for the weights applied, or for what is added to the advantages.
        kind: of the weighting.
        shift: entropy by JS and JS by position, if whole distributions are compared.
    """

    divergence: list[torch.Tensor] = field(default_factory=list)
    weights: list[torch.Tensor] = field(default_factory=list)
    shift: ShiftSums = field(default_factory=ShiftSums)
    kind: Kind = KINDS["multiplier"]

    def metrics(self, accelerator: Accelerator) -> dict[str, float]:
        """Statistics over all ranks' tokens; communicates, so every rank must call it. Empties the window."""
        metrics: dict[str, float] = {}
        of_weights = partial(weight_metrics, kind=self.kind)
        for values, summarise in ((self.divergence, divergence_metrics), (self.weights, of_weights)):
            if values:  # as many micro-steps on every rank, so all ranks agree on this
                everyone, _ = gather_ragged(accelerator, torch.cat(values))
                if everyone.numel():
                    metrics |= summarise(everyone.cpu().numpy())
            values.clear()
        return metrics | self.shift.metrics(accelerator)
