"""Fixed cut points on per-token divergences, in nats, and the bins of what is reported by them."""

import math

NEAR_ZERO = 1e-3
"""A token below this moved by nothing that matters. The publication gives no value; this one is the project's."""

HIGH = 0.1
"""A high-divergence token lies above this (arXiv 2603.22446, section 3)."""

IMPROBABLE = 0.01
"""Below this probability under the base, a token counts as improbable there (arXiv 2603.22446, section 5)."""

LOG_2 = math.log(2)
"""The largest JS."""

JS_EDGES = (NEAR_ZERO, 0.01, HIGH)
JS_BINS = ("near_zero", "low", "middle", "high")
"""Names of the bins that the edges part JS into: [0, 1e-3), [1e-3, 0.01), [0.01, 0.1), [0.1, ln 2]."""

POSITION_BINS = 20
"""Equal parts of a completion."""

SPARSITY = (1e-5, 1e-4, NEAR_ZERO, 1e-2, HIGH)
"""Where the share of tokens below is reported."""

LOW_ENTROPY = 0.3
"""Nats; below it a distribution counts as low-entropy: its most probable token has about 0.9 or more. Ours."""
