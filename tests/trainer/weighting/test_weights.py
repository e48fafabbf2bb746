"""Weight formulas against float64, their bounds, and hostile inputs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenshift.trainer.weighting.weights import k1, k2, k3, low_prob_weights, sigmoid_weights

SAMPLED = {function.__name__: function for function in (k1, k2, k3)}

logps = st.floats(-60.0, 0.0, width=32)
alphas = st.floats(-1e4, 1e4).filter(lambda alpha: alpha != 0)


def oracle_divergence(name: str, logp: float, old: float) -> float:
    """METHOD's definitions in float64; k3 by its series where the closed form cancels."""
    d = float(np.float64(logp) - np.float64(old))
    if name == "k1":
        return -d
    if name == "k2":
        return d * d / 2
    if abs(d) < 1e-2:
        return sum(d**n / math.factorial(n) for n in range(2, 9))
    return math.exp(d) - 1 - d


@pytest.mark.parametrize("name", SAMPLED)
@given(pairs=st.lists(st.tuples(logps, logps), min_size=1, max_size=20))
def test_divergences_against_float64(name: str, pairs: list[tuple[float, float]]) -> None:
    logp, old = (torch.tensor(column, dtype=torch.float32) for column in zip(*pairs, strict=True))
    ours = SAMPLED[name](logp, old).double().numpy()
    expected = np.array([oracle_divergence(name, *pair) for pair in zip(logp.tolist(), old.tolist(), strict=True)])
    # the difference of the two float32 inputs is itself rounded: relative to it, not to the tiny result
    d = np.abs(logp.double().numpy() - old.double().numpy())
    np.testing.assert_allclose(ours, expected, rtol=3e-6, atol=3e-7 * np.max(d, initial=0.0) + 1e-12)


def test_k3_keeps_its_digits_near_zero() -> None:
    d = torch.tensor([1e-4, -1e-4, 1e-3, 1e-5])
    expected = d.double() ** 2 / 2 + d.double() ** 3 / 6
    assert torch.allclose(k3(d, torch.zeros(4)).double(), expected, rtol=2e-3)
    naive = (torch.exp(d) - 1 - d).double()
    assert not torch.allclose(naive, expected, rtol=2e-3), "the naive form would do as well"


@given(d=st.floats(-80, 80))
def test_k3_is_never_negative(d: float) -> None:
    assert k3(torch.tensor(d), torch.tensor(0.0)) >= 0


@given(divergence=st.floats(-10, 1e6), alpha=alphas, scale=st.floats(0, 2))
def test_sigmoid_weights_against_float64(divergence: float, alpha: float, scale: float) -> None:
    value = torch.tensor(divergence, dtype=torch.float32)
    x = alpha * float(value)
    expected = 1 + scale * (1 / (1 + math.exp(-x)) - 0.5 if x > -700 else -0.5)
    assert float(sigmoid_weights(value, alpha, scale)) == pytest.approx(expected, abs=2e-6)


@given(divergence=st.floats(0, 1e30), alpha=alphas, scale=st.floats(0, 2))
def test_sigmoid_weights_stay_in_their_bounds(divergence: float, alpha: float, scale: float) -> None:
    weight = float(sigmoid_weights(torch.tensor(divergence), alpha, scale))
    low, high = (1, 1 + scale / 2) if alpha > 0 else (1 - scale / 2, 1)
    assert low - 1e-6 <= weight <= high + 1e-6


@pytest.mark.parametrize(("alpha", "published"), [(1, 0.001), (10, 0.013), (100, 0.127), (1000, 0.494)])
def test_published_size_of_the_weights(alpha: float, published: float) -> None:
    """sigmoid(alpha * k3) - 1/2 where the log-probability moved by 0.1."""
    divergence = k3(torch.tensor(0.1), torch.tensor(0.0))
    assert float(sigmoid_weights(divergence, alpha, 1.0)) - 1 == pytest.approx(published, abs=6e-4)


@given(logp=logps, coef=st.floats(0, 2))
def test_low_prob_weights_against_float64(logp: float, coef: float) -> None:
    weight = float(low_prob_weights(torch.tensor(logp), coef))
    assert weight == pytest.approx(1 + coef - coef * math.exp(logp), abs=1e-6)
    assert 1 - 1e-6 <= weight <= 1 + coef + 1e-6


def test_extreme_inputs_saturate() -> None:
    huge = torch.tensor([float("inf"), 1e38, 0.0])
    assert sigmoid_weights(huge, 100.0, 1.0).tolist() == [1.5, 1.5, 1.0]
    assert sigmoid_weights(huge, -100.0, 1.0).tolist() == [0.5, 0.5, 1.0]
    assert k3(torch.tensor([0.0]), torch.tensor([-1000.0])).item() == float("inf")
    assert k3(torch.empty(0), torch.empty(0)).shape == (0,)
    assert low_prob_weights(torch.tensor([float("-inf")]), 0.2).item() == pytest.approx(1.2)
