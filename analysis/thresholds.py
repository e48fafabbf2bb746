"""Fixed cut points on per-token divergences, in nats."""

NEAR_ZERO = 1e-3
"""A token below this moved by nothing that matters. The publication gives no value; this one is the project's."""

HIGH = 0.1
"""A high-divergence token lies above this (arXiv 2603.22446, section 3)."""
