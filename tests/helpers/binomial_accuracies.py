"""Made-up accuracies of problems."""

import numpy as np

SAMPLES = 8


def accuracies(rng: np.random.Generator, rates: np.ndarray) -> np.ndarray:
    """Share of correct responses to problems that are solved at these rates."""
    return rng.binomial(SAMPLES, rates) / SAMPLES
