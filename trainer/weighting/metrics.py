"""Exact statistics of per-token values over a logging window and over all ranks."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from tokenshift.analysis.divergence.summary import divergence_summary, mean
from tokenshift.analysis.shift.binned_means import entropy_and_position_means
from tokenshift.analysis.thresholds import JS_BINS, POSITION_BINS, js_bins, position_bins
from tokenshift.trainer.weighting.kinds import KINDS, Kind
from tokenshift.trainer.weighting.long_windows import MOST_VALUES, Counted, counted, gathered_on_main

ACTIVE = 0.01
"""A value further than this from the one that changes nothing counts as active."""


def _finite(
    values: np.ndarray, counts: np.ndarray | None, prefix: str
) -> tuple[np.ndarray, np.ndarray | None, dict[str, float]]:
    """The finite values and their counts, and `{prefix}/non_finite_share` where any of the `(N,)` values is not.

    One overflow among a thousand tokens would otherwise make every mean and percentile infinite or NaN.
    """
    finite = np.isfinite(values)
    if finite.all():
        return values, counts, {}
    share = mean(~finite, counts)
    return values[finite], None if counts is None else counts[finite], {f"{prefix}/non_finite_share": share}


def divergence_metrics(
    values: np.ndarray, counts: np.ndarray | None = None, prefix: str = "divergence"
) -> dict[str, float]:
    """`divergence/*` of per-token divergences `(N,)` in nats, N > 0; shares are of |D|, since k1 is signed.

    All are of the finite values; `divergence/non_finite_share` counts the others, where there are any.

    Args:
        values: the divergences; ascending where they are counted.
        counts: how often each occurs, `(N,)`; once each when None.
        prefix: of the metrics' names.
    """
    values, counts, metrics = _finite(values, counts, prefix)
    if not len(values):
        return metrics
    return metrics | {f"{prefix}/{name}": value for name, value in divergence_summary(values, counts).items()}


def weight_metrics(
    values: np.ndarray, counts: np.ndarray | None = None, kind: Kind = KINDS["multiplier"]
) -> dict[str, float]:
    """`advantage_weight/*` of the weights `(N,)` as applied, N > 0, or `advantage_bonus/*` of what is added.

    `std` is the population's; `frac_active` the share of values further than `ACTIVE` from the neutral one, 1 or 0.
    All are of the finite values; `non_finite_share` counts the others, where there are any.

    Args:
        values: the weights.
        counts: how often each occurs, `(N,)`; once each when None.
        kind: of the weighting.
    """
    values, counts, metrics = _finite(values, counts, kind.metric)
    if not len(values):
        return metrics
    average = mean(values, counts)
    if counts is None:
        deviation = float(values.std(dtype=np.float64))
    else:
        deviation = math.sqrt(mean((values.astype(np.float64) - average) ** 2, counts))
    return metrics | {
        f"{kind.metric}/mean": average,
        f"{kind.metric}/std": deviation,
        f"{kind.metric}/min": float(values.min()),
        f"{kind.metric}/max": float(values.max()),
        f"{kind.metric}/frac_active": mean(np.abs(values - kind.neutral) > ACTIVE, counts),
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

    Of more than `MOST_VALUES` tokens on a rank the values are rounded to 12 binary digits and counted, so that
    statistics are within 0.02 % of themselves, and memory no longer grows with the length of the window.

    Attributes:
        divergence: one `(n,)` float32 tensor a micro-step, the valid tokens' divergences (nats).
        weights: the same for the weights applied, or for what is added to the advantages.
        rollout: the same for how far the engine that sampled is from the trainer (nats), one tensor a generation.
        kind: of the weighting.
        shift: entropy by JS and JS by position, if whole distributions are compared.
        most_values: values of each that a rank keeps whole.
    """

    divergence: list[torch.Tensor] = field(default_factory=list)
    weights: list[torch.Tensor] = field(default_factory=list)
    rollout: list[torch.Tensor] = field(default_factory=list)
    shift: ShiftSums = field(default_factory=ShiftSums)
    kind: Kind = KINDS["multiplier"]
    most_values: int = MOST_VALUES
    _counted: dict[str, Counted] = field(default_factory=dict)  # name -> the earlier steps' values

    def add(self, name: str, values: torch.Tensor) -> None:
        """Add a micro-step's values `(n,)`; those of earlier ones are counted where there are too many.

        Args:
            name: `divergence`, `weights` or `rollout`.
            values: float32.
        """
        kept: list[torch.Tensor] = getattr(self, name)
        if kept and sum(map(len, kept)) + len(values) > self.most_values:
            self._count(name)
        kept.append(values)

    def _count(self, name: str) -> None:
        kept: list[torch.Tensor] = getattr(self, name)
        earlier = [self._counted[name]] if name in self._counted else []
        self._counted[name] = counted(*earlier, *kept)
        kept.clear()

    def metrics(self, accelerator: Accelerator) -> dict[str, float]:
        """Statistics over all ranks' tokens, which the main process computes; every rank must call it, and gets them.

        Empties the window.
        """
        metrics: dict[str, float] = {}
        of_weights, of_rollouts = (
            partial(weight_metrics, kind=self.kind),
            partial(divergence_metrics, prefix="rollout"),
        )
        summaries: dict[str, Callable[..., dict[str, float]]]
        summaries = {"divergence": divergence_metrics, "weights": of_weights, "rollout": of_rollouts}
        for name, summarise in summaries.items():
            if getattr(self, name):  # as many micro-steps on every rank, so all ranks agree on this
                metrics |= self._summary(accelerator, name, summarise)
        if accelerator.num_processes > 1:
            (metrics,) = broadcast_object_list([metrics])
        return metrics | self.shift.metrics(accelerator)

    def _summary(
        self, accelerator: Accelerator, name: str, summarise: Callable[..., dict[str, float]]
    ) -> dict[str, float]:
        """The statistics of one quantity on the main process, none on the others. Empties its window."""
        is_counted = torch.tensor([int(name in self._counted)], device=accelerator.device)
        if bool(accelerator.gather(is_counted).any()):
            self._count(name)
            values, counts = (gathered_on_main(accelerator, part) for part in self._counted.pop(name))
            if values is not None and counts is not None:
                values, counts = counted((values, counts))
        else:
            kept: list[torch.Tensor] = getattr(self, name)
            values, counts = gathered_on_main(accelerator, torch.cat(kept)), None
            kept.clear()
        if values is None or not len(values):
            return {}
        return summarise(values.numpy(), None if counts is None else counts.numpy())
