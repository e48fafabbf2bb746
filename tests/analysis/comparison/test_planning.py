"""Plans of how many seeds show a difference, by simulation: an effect is found as often as planned, a null at 5 %."""

import numpy as np
import pytest
from scipy import stats

from tokenshift.analysis.comparison.coverage import ENOUGH_SEEDS, MIXTURE, PAIRS, STEADY, SeedDistribution, t_intervals
from tokenshift.analysis.comparison.planning import (
    Spread,
    pilot_spread,
    power,
    recommended_seeds,
    seeds_needed,
)

TRIALS = 20_000


def found(variant: SeedDistribution, baseline: SeedDistribution, effect: float, seeds: int, seed: int = 0) -> float:
    """The share of simulated comparisons of learning areas that find an effect on top of the distributions' means."""
    rng = np.random.default_rng(seed)
    outcomes = [arm.draw(rng, (TRIALS, seeds), True) - arm.mean(True) for arm in (variant, baseline)]
    low, high = t_intervals(outcomes[0] + effect - outcomes[1])
    return float(((low > 0) | (high < 0)).mean())


def spread_of(variant: SeedDistribution, baseline: SeedDistribution) -> Spread:
    drawn = [arm.draw(np.random.default_rng(7), (400_000,), True) for arm in (variant, baseline)]
    return Spread(float(np.sqrt(drawn[0].var() + drawn[1].var())))


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("effect", [1.0, 2.0])
def test_an_injected_effect_is_found_as_planned_and_a_null_at_five_percent(name: str, effect: float) -> None:
    variant, baseline = PAIRS[name]
    seeds = recommended_seeds(effect, spread_of(variant, baseline), area=True)
    assert seeds is not None
    rate = found(variant, baseline, effect, seeds)
    assert rate >= (0.79 if variant == baseline else 0.76)  # an effect against a skewed difference is found less often
    assert found(variant, baseline, 0.0, seeds) <= 0.06  # the other side of a coverage of 94 %


def test_normal_seeds_are_found_at_the_power_that_is_computed() -> None:
    spread = Spread(0.75 * 2**0.5)
    for seeds in (3, 8, 20):
        computed = power(seeds, 1.0, spread)
        assert found(STEADY, STEADY, 1.0, seeds) == pytest.approx(computed, abs=0.012)
    assert power(8, 0.0, spread) == pytest.approx(0.05, abs=2e-3)
    exact = stats.nct.sf(stats.t.ppf(0.975, 7), 7, 8**0.5 / spread.value)
    assert power(8, 1.0, spread) == pytest.approx(exact, abs=2e-3)
    assert power(8, -1.0, spread, comparisons=12) < power(8, 1.0, spread)


def test_a_pilots_uncertainty_is_paid_for_in_seeds() -> None:
    """Plans from pilots of 5 seeds of two variants are powered at 80 % on average, not only with a lucky pilot."""
    rng = np.random.default_rng(0)
    known = seeds_needed(1.0, Spread(1.0))
    powers, lucky = [], []
    for value in np.sqrt(rng.chisquare(4, 40) / 4):
        seeds, naive = seeds_needed(1.0, Spread(value, 4)), seeds_needed(1.0, Spread(value))
        assert seeds is not None
        assert naive is not None
        powers.append(power(seeds, 1.0, Spread(1.0)))
        lucky.append(power(naive, 1.0, Spread(1.0)))
    assert known == 10
    assert 0.78 < np.mean(powers) < 0.88
    assert np.mean(lucky) < np.mean(powers) - 0.05


def test_the_spread_of_a_pilot() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(3, 4)) + 5 * rng.normal(size=(1, 4))  # seeds that all variants share cancel
    rows = [{str(seed): value for seed, value in enumerate(row)} for row in table]
    spread = pilot_spread(rows)
    pairs = [np.var(table[one] - table[two], ddof=1) for one, two in ((0, 1), (0, 2), (1, 2))]
    assert spread.value == pytest.approx(np.sqrt(np.mean(pairs)))
    assert (spread.degrees, spread.variants, spread.seeds) == (6, 3, 4)
    rows[1]["2"] = None
    assert pilot_spread([*rows, {}]).seeds == 3
    with pytest.raises(ValueError, match="1 of its variants has the outcome"):
        pilot_spread([rows[0], {"0": None}])
    with pytest.raises(ValueError, match="0 of its seeds has the outcome for every variant"):
        pilot_spread([{"0": 0.5}, {"1": 0.5}])
    with pytest.raises(ValueError, match="differences are the same for every seed"):
        pilot_spread([{"0": 0.5, "1": 0.6}, {"0": 0.3, "1": 0.4}])


def test_ends_of_a_plan() -> None:
    assert seeds_needed(1.0, Spread(1e-3)) == 2
    assert seeds_needed(1e-4, Spread(1.0)) is None
    assert recommended_seeds(1e-4, Spread(1.0), area=True) is None
    assert recommended_seeds(5.0, Spread(1.0), area=False) == ENOUGH_SEEDS[False]
    assert seeds_needed(1.0, spread_of(MIXTURE, MIXTURE), comparisons=12) > seeds_needed(  # type: ignore[operator]
        1.0, spread_of(MIXTURE, MIXTURE)
    )
