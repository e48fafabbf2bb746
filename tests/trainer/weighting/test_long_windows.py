"""Windows too long to be kept whole: counted values against numpy over all of them."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from tokenshift.analysis.divergence.summary import counted_quantiles
from tokenshift.trainer.weighting.long_windows import counted, rounded
from tokenshift.trainer.weighting.metrics import TokenWindow

LEVELS = [0.0, 0.1, 0.5, 0.9, 0.95, 0.99, 1.0]


def test_rounding_is_within_its_digits_and_makes_few_values() -> None:
    values = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) - 0.5
    near = rounded(values)
    assert float(((near - values) / values).abs().max()) <= 2.0**-13
    assert torch.equal(rounded(near), near)
    assert torch.equal(rounded(-values), -near)
    extreme = torch.tensor([0.0, torch.inf, -torch.inf, torch.nan, torch.finfo(torch.float32).max])
    assert rounded(extreme).tolist() == [0.0, torch.inf, torch.inf, torch.inf, torch.finfo(torch.float32).max]


def test_counted_values_have_the_quantiles_of_the_values_one_by_one() -> None:
    values = rounded(torch.rand(1001, generator=torch.Generator().manual_seed(1)) ** 8)
    different, counts = counted(counted(values[:400]), values[400:])
    assert torch.equal(torch.repeat_interleave(different, counts), values.sort().values)
    expected = np.quantile(values.double().numpy(), LEVELS)
    np.testing.assert_allclose(counted_quantiles(different.double().numpy(), counts.numpy(), LEVELS), expected)


@pytest.mark.parametrize("extreme", [[], [torch.inf, torch.nan]])
def test_a_long_window_says_what_a_whole_one_says(extreme: list[float]) -> None:
    generator = torch.Generator().manual_seed(2)
    steps = [torch.cat([torch.rand(500, generator=generator) ** 6, torch.tensor(extreme)]) for _ in range(8)]
    whole, long = TokenWindow(), TokenWindow(most_values=1000)
    for step in steps:
        for window in (whole, long):
            window.add("divergence", step)
            window.add("weights", 1 + step)
        assert sum(map(len, long.divergence)) <= 1000
        assert torch.equal(long.divergence[-1], step), "the last step is there as it came"
    expected, seen = (window.metrics(Accelerator(cpu=True)) for window in (whole, long))
    assert seen.keys() == expected.keys()
    assert ("divergence/non_finite_share" in seen) == bool(extreme)
    for name, value in expected.items():
        assert seen[name] == pytest.approx(value, rel=2e-4, abs=1e-3 if "frac" in name else 1e-12), name
    assert long.metrics(Accelerator(cpu=True)) == {}


def test_a_long_window_does_not_grow_with_its_steps() -> None:
    window, generator, sizes = TokenWindow(most_values=20_000), torch.Generator().manual_seed(3), []
    for _ in range(40):
        window.add("divergence", torch.rand(20_000, generator=generator))
        sizes.append(len(window._counted["divergence"][0]) if window._counted else 0)
    assert sizes[-1] < 1.5 * sizes[10] < 100_000, "four times the tokens"
