"""Statistics of a logging window against numpy over all its tokens."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from tokenshift.trainer.weighting.metrics import TokenWindow


def test_window_is_exact_over_its_steps_and_empties() -> None:
    rng = np.random.default_rng(0)
    steps = [rng.gamma(0.1, 0.1, size=n).astype(np.float32) for n in (7, 1, 0, 130)]
    window = TokenWindow()
    for step in steps:
        window.divergence.append(torch.tensor(step))
        window.weights.append(torch.tensor(1 + step))
    every = np.concatenate(steps)
    metrics = window.metrics(Accelerator(cpu=True))
    for name, q in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)):
        assert metrics[f"divergence/{name}"] == pytest.approx(np.quantile(every, q))
    assert metrics["divergence/mean"] == pytest.approx(every.mean(dtype=np.float64))
    assert metrics["divergence/frac_near_zero"] == (every < 1e-3).mean()
    assert metrics["divergence/frac_high"] == (every > 0.1).mean()
    assert metrics["advantage_weight/mean"] == pytest.approx(1 + every.mean(dtype=np.float64))
    assert metrics["advantage_weight/std"] == pytest.approx((1 + every).std(dtype=np.float64))
    assert metrics["advantage_weight/frac_active"] == pytest.approx((every > 0.01).mean(), abs=1e-3)
    assert window.metrics(Accelerator(cpu=True)) == {}


def test_signed_divergence_counts_by_size() -> None:
    window = TokenWindow(divergence=[torch.tensor([-0.5, -1e-4, 1e-4, 0.2])])
    metrics = window.metrics(Accelerator(cpu=True))
    assert metrics["divergence/frac_high"] == 0.5
    assert metrics["divergence/frac_near_zero"] == 0.5


def test_window_without_a_token_says_nothing() -> None:
    assert TokenWindow(divergence=[torch.empty(0)]).metrics(Accelerator(cpu=True)) == {}
