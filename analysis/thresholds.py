"""Cut points: of rewards, and of per-token divergences in nats, with the bins that these are reported by.

The bins of JS and of the position in a response are defined here once: for the probe, for the metrics of a training
(on torch tensors) and for the summaries of a per-token table (on numpy arrays).
"""

import math
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import torch

Array = TypeVar("Array", "np.ndarray[Any, Any]", "torch.Tensor")

CORRECT = 1.0
"""The lowest reward of a correct response, where no setting says otherwise."""

NEAR_ZERO = 1e-3
"""A token below this did not move in a way that matters. The publication gives no value; this one is the project's."""

HIGH = 0.1
"""A high-divergence token lies above this, strictly (arXiv 2603.22446, section 2)."""

IMPROBABLE = 0.01
"""Below this probability under the base, a token counts as improbable there (arXiv 2603.22446, section 4)."""

CLEAR_OF_NOISE = 2.0
"""A mean divergence below this many noise floors is told: half of it, or more, is rounding."""

LOG_2 = math.log(2)
"""The largest JS."""

JS_EDGES = (NEAR_ZERO, 0.01, HIGH)
"""The edges of the bins of JS, nats; a value on an edge belongs to the bin above it."""

JS_BINS = ("near_zero", "low", "middle", "high")
"""Names of the bins of JS: [0, 1e-3), [1e-3, 0.01), [0.01, 0.1), [0.1, ln 2]."""

POSITION_BINS = 20
"""Number of equal parts that a response is divided into."""

POSITION_NAMES = tuple(f"{part:02d}" for part in range(POSITION_BINS))
"""Names of the parts of a response in the metrics of a training and of the probe."""

SPARSITY = (1e-5, 1e-4, NEAR_ZERO, 1e-2, HIGH)
"""Thresholds for which the share of tokens below is reported, nats."""

LOW_ENTROPY = 0.3
"""Nats; below it a distribution counts as low-entropy: its most probable token has about 0.9 or more. The value is
this project's."""


def js_bins(js: Array) -> Array:
    """Index of each token's bin in `JS_BINS`, int64, in the shape of the argument.

    The edges are compared in the precision of the values, as `js < NEAR_ZERO` does.

    Args:
        js: divergences in nats, a numpy array or a torch tensor of floats.
    """
    first, *others = JS_EDGES
    bins = (js >= first) * 1
    for edge in others:
        bins = bins + (js >= edge) * 1
    return bins


def position_bins(position: Array, length: Array) -> Array:
    """Index of the equal part of its response that each token lies in, 0 to `POSITION_BINS` - 1.

    Args:
        position: places of the tokens in their responses, int64, from 0; a numpy array or a torch tensor.
        length: lengths of these responses in tokens, of the same shape.
    """
    return position * POSITION_BINS // length
