"""Controls and normalisation in one process; over several, see tests/distributed."""

import random

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st

from tokenshift.trainer.weighting.controls import global_mean, mean_weights, normalize_weights, shuffle_weights


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


WEIGHTS = torch.linspace(0.5, 1.5, 50)


def test_shuffle_is_a_seeded_permutation(accelerator: Accelerator) -> None:
    first, again = (shuffle_weights(accelerator, WEIGHTS, seed=1, step=2) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, WEIGHTS)
    assert torch.equal(first.sort().values, WEIGHTS)
    for seed, step in ((1, 3), (2, 2), (2, 1)):
        assert not torch.equal(first, shuffle_weights(accelerator, WEIGHTS, seed, step))


def test_shuffle_leaves_the_runs_random_numbers_alone(accelerator: Accelerator) -> None:
    states = torch.get_rng_state(), random.getstate()
    shuffle_weights(accelerator, WEIGHTS, seed=0, step=0)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()


@given(values=st.lists(st.floats(0.5, 1.5, width=32), max_size=40))
def test_mean_and_normalised(values: list[float]) -> None:
    accelerator, weights = Accelerator(cpu=True), torch.tensor(values, dtype=torch.float32)
    expected = np.mean(values, dtype=np.float64) if values else 1.0
    assert float(global_mean(accelerator, weights)) == pytest.approx(expected, rel=1e-6)
    assert mean_weights(accelerator, weights).tolist() == pytest.approx([expected] * len(values), rel=1e-6)
    normalised = normalize_weights(accelerator, weights)
    if values:
        assert float(normalised.double().mean()) == pytest.approx(1.0, rel=1e-6)
