"""The share of weights that an update can change, against updates made in their type."""

import pytest
import torch

from tokenshift.trainer.precision import moved_share, precision_warning


def test_share_against_updates_made() -> None:
    weights = (0.02 * torch.randn(20_000, generator=torch.Generator().manual_seed(0))).bfloat16()
    for rate in (1e-6, 1e-4, 1e-2):
        update = torch.tensor(rate).bfloat16()
        changed = (weights + update != weights) | (weights - update != weights)
        assert moved_share([weights], rate) == pytest.approx(float(changed.double().mean()), abs=5e-3)
    assert moved_share([weights], 1e-6) == pytest.approx(0.02, abs=0.005), "next to none at the usual learning rate"


def test_float32_weights_are_told_nothing() -> None:
    assert precision_warning([torch.ones(3)], 1e-6, quantized=False) is None
    line = str(precision_warning([torch.ones(3), torch.ones(3).bfloat16()], 1e-6, quantized=False))
    assert "bfloat16, without float32 masters" in line
    assert "1e-06 changes at most 0.0% of them" in line
    assert "'dtype': 'float32'" in line
    assert "higher learning_rate" in str(precision_warning([torch.ones(3).half()], 1e-6, quantized=True))
