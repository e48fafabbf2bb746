"""The reference divergences against scipy, and on hostile rows."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr
from scipy.stats import entropy as scipy_entropy

from tokenshift.analysis.divergence.from_logits import entropy, js_divergence, kl_divergence, log_probabilities

LN2 = math.log(2)
sizes = st.sampled_from([1, 2, 3, 17, 300])
top_ps = st.sampled_from([1e-9, 0.1, 0.5, 0.7, 0.999999, 1.0])


def random_logits(size: int, seed: int, kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(6, size, generator=generator, dtype=torch.float64)
    if kind == "ties":
        logits = logits.round()
    if kind == "holes":
        logits[torch.rand(6, size, generator=generator) < 0.5] = -math.inf
        logits[:, 0] = 0.0
    if kind == "one-hot":
        logits = torch.full((6, size), -math.inf, dtype=torch.float64)
        logits.scatter_(1, torch.randint(size, (6, 1), generator=generator), 0.0)
    return logits


def brute_force_probabilities(row: np.ndarray, top_p: float) -> np.ndarray:
    """Sampling's own definition, token by token."""
    p = np.exp(row - row.max())
    p /= p.sum()
    if top_p == 1:
        return p
    kept, mass = np.zeros(len(p), bool), 0.0
    for index in sorted(range(len(p)), key=lambda i: (-p[i], i)):
        kept[index] = p[index] > 0
        mass += p[index]
        if mass >= top_p:
            break
    return np.where(kept, p, 0) / p[kept].sum()


kinds = st.sampled_from(["plain", "ties", "holes", "one-hot"])


@given(size=sizes, seed=st.integers(0, 500), kind_p=kinds, kind_q=kinds, top_p=top_ps)
def test_against_scipy(size: int, seed: int, kind_p: str, kind_q: str, top_p: float) -> None:
    p, q = random_logits(size, seed, kind_p), random_logits(size, seed + 1, kind_q)
    js, kl = js_divergence(p, q, top_p=top_p), kl_divergence(p, q, top_p=top_p)
    for row in range(6):
        a, b = brute_force_probabilities(p[row].numpy(), top_p), brute_force_probabilities(q[row].numpy(), top_p)
        np.testing.assert_allclose(log_probabilities(p[row], top_p=top_p).exp().numpy(), a, atol=1e-12)
        expected = 0.0 if size == 1 else float(np.nan_to_num(jensenshannon(a, b))) ** 2
        assert float(js[row]) == pytest.approx(expected, abs=1e-9)
        assert float(kl[row]) == pytest.approx(float(rel_entr(a, b).sum()), abs=1e-9)
    assert ((js >= 0) & (js <= LN2)).all()
    assert (kl >= 0).all()


@given(size=sizes, seed=st.integers(0, 500), kind=kinds, temperature=st.floats(0.1, 5))
def test_entropy_and_temperature(size: int, seed: int, kind: str, temperature: float) -> None:
    logits = random_logits(size, seed, kind)
    ours = entropy(logits, temperature=temperature)
    expected = [scipy_entropy(brute_force_probabilities(row.numpy() / temperature, 1.0)) for row in logits]
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-9)
    assert (ours <= math.log(size) + 1e-9).all()


def test_identical_and_disjoint() -> None:
    logits = torch.randn(5, 40)
    assert js_divergence(logits, logits).abs().max() < 1e-6
    assert torch.equal(kl_divergence(logits, logits), torch.zeros(5))
    one, other = torch.tensor([0.0, -math.inf]), torch.tensor([-math.inf, 0.0])
    assert float(js_divergence(one, other)) == pytest.approx(LN2)
    assert float(kl_divergence(one, other)) == math.inf


def test_shapes_dtypes_and_empty() -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        p, q = torch.randn(2, 3, 7).to(dtype), torch.randn(2, 3, 7).to(dtype)
        assert js_divergence(p, q).shape == (2, 3)
        assert js_divergence(p, q).dtype == torch.float32
    assert js_divergence(torch.empty(0, 5), torch.empty(0, 5)).shape == (0,)
    assert kl_divergence(torch.randn(4, 1), torch.randn(4, 1)).tolist() == [0.0] * 4


def test_ties_keep_the_lower_ids() -> None:
    logp = log_probabilities(torch.zeros(4), top_p=0.5)
    assert logp.exp().tolist() == [0.5, 0.5, 0.0, 0.0]


def test_nan_is_not_hidden() -> None:
    bad = torch.tensor([0.0, math.nan])
    assert js_divergence(bad, torch.zeros(2)).isnan()
    assert entropy(bad).isnan()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"top_p": 0.0}, "top_p=0.0 must lie in"),
        ({"top_p": 1.1}, "top_p=1.1 must lie in"),
        ({"top_p": math.nan}, "top_p=nan must lie in"),
        ({"temperature": 0.0}, "temperature=0.0 must be"),
        ({"temperature": math.inf}, "temperature=inf must be"),
    ],
)
def test_bad_numbers(settings: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        js_divergence(torch.zeros(3), torch.zeros(3), **settings)


def test_bad_shapes() -> None:
    with pytest.raises(ValueError, match=r"shapes \(2, 3\) and \(2, 4\)"):
        kl_divergence(torch.zeros(2, 3), torch.zeros(2, 4))
