"""How many tokens have which JS and which entropy: the joint histogram of a summary and of the probe."""

import numpy as np

from tokenshift.analysis.thresholds import LOG_2

JOINT_JS = np.concatenate([[0.0], np.geomspace(1e-7, LOG_2 * (1 + 1e-6), 41)])
"""Edges of the bins of JS, nats; float32 tells smaller divergences than the second from zero only by chance."""

JOINT_ENTROPY = np.linspace(0, 12, 121)
"""Edges of the bins of entropy, nats; larger entropies count in the last bin."""


def joint_counts(js: np.ndarray, entropy: np.ndarray) -> np.ndarray:
    """Number of tokens by bins of `JOINT_JS` and `JOINT_ENTROPY`, int64 `(41, 120)`, from `(N,)` each in nats."""
    pair = (js, entropy.clip(0, JOINT_ENTROPY[-1]))
    return np.histogram2d(*pair, (JOINT_JS, JOINT_ENTROPY))[0].astype(np.int64)
