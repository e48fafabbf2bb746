"""Statistics of a logging window against numpy over all its tokens."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from tokenshift.trainer.weighting.metrics import ShiftSums, TokenWindow
from tokenshift.trainer.weighting.weights import k3


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


def test_sums_of_the_shift_empty_and_leave_empty_bins_out() -> None:
    sums = ShiftSums()
    assert sums.metrics(Accelerator(cpu=True)) == {}
    entropies = {"entropy_reference": torch.tensor([1.0, 2.0]), "entropy_policy": torch.tensor([0.5, 1.5])}
    for js in ([0.0, 0.2], [0.0005, 0.1]):
        sums.add(js=torch.tensor(js), position=torch.tensor([0, 19]), length=torch.tensor([7, 20]), **entropies)
    assert sums.metrics(Accelerator(cpu=True)) == pytest.approx(
        {
            "divergence_entropy/policy_near_zero": 0.5,
            "divergence_entropy/reference_near_zero": 1.0,
            "divergence_entropy/policy_high": 1.5,
            "divergence_entropy/reference_high": 2.0,
            "divergence_position/00": 0.00025,
            "divergence_position/19": 0.15,
        }
    )
    assert sums.metrics(Accelerator(cpu=True)) == {}


@pytest.mark.parametrize("extreme", [float("inf"), -float("inf"), float("nan")])
def test_single_extreme_tokens_leave_the_statistics_of_the_others(extreme: float) -> None:
    values = torch.cat([torch.tensor([extreme]), torch.linspace(0, 0.5, 9)])
    metrics = TokenWindow(divergence=[values], weights=[1 + values]).metrics(Accelerator(cpu=True))
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["divergence/non_finite_share"] == pytest.approx(0.1)
    assert metrics["advantage_weight/non_finite_share"] == pytest.approx(0.1)
    rest = TokenWindow(divergence=[values[1:]], weights=[1 + values[1:]]).metrics(Accelerator(cpu=True))
    assert not any("non_finite" in name for name in rest)
    assert {name: value for name, value in metrics.items() if "non_finite" not in name} == rest


def test_window_of_extreme_tokens_alone_counts_them() -> None:
    window = TokenWindow(divergence=[torch.tensor([torch.inf, torch.nan])])
    assert window.metrics(Accelerator(cpu=True)) == {"divergence/non_finite_share": 1.0}


def test_overflow_of_k3_is_infinite_and_blots_nothing() -> None:
    old = torch.zeros(1000)
    old[0] = -100.0
    metrics = TokenWindow(divergence=[k3(torch.zeros(1000), old)]).metrics(Accelerator(cpu=True))
    assert metrics["divergence/p50"] == metrics["divergence/p99"] == metrics["divergence/max"] == 0
    assert metrics["divergence/non_finite_share"] == 0.001


def test_sums_of_the_shift_leave_extreme_tokens_out() -> None:
    sums, rest = ShiftSums(), ShiftSums()
    place = {"position": torch.tensor([0, 1, 2]), "length": torch.tensor([3, 3, 3])}
    js, entropies = torch.tensor([0.0, torch.nan, 0.2]), torch.tensor([1.0, 1.0, torch.inf])
    sums.add(js=js, entropy_reference=entropies, entropy_policy=entropies, **place)
    first = {name: value[:1] for name, value in place.items()}
    rest.add(js=js[:1], entropy_reference=entropies[:1], entropy_policy=entropies[:1], **first)
    assert sums.metrics(Accelerator(cpu=True)) == rest.metrics(Accelerator(cpu=True))
