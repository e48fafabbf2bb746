"""Prints the measured coverage of a comparison's intervals and the power of its plans: `make comparison-coverage`.

python -m helpers.comparison_coverage [TRIALS]
"""

import sys

import numpy as np

from tokenshift.analysis.comparison.coverage import ENOUGH_SEEDS, PAIRS, simulated_coverages, t_intervals
from tokenshift.analysis.comparison.planning import Spread, recommended_seeds

SEEDS = {True: (2, 3, 5, 8, 10, 15, 20, 25, 30, 40, 60), False: (2, 3, 5, 8, 10, 15, 20, 40, 60, 80, 100, 120)}
"""The numbers of seeds, for the area under the learning curve and for the final accuracy."""

EFFECTS = (0.5, 1.0, 2.0)
"""The injected effects, points."""

TRIALS = 40_000


def main(trials: int = TRIALS) -> None:
    """Print the tables."""
    for area, words in ((True, "area under the learning curve"), (False, "final accuracy")):
        print(f"Coverage of 95 % intervals, {words}, {trials:,} comparisons each; enough: {ENOUGH_SEEDS[area]} seeds")
        for seeds in SEEDS[area]:
            coverages = simulated_coverages(seeds, area, trials, seed=1)
            shown = "  ".join(f"{100 * coverage:.1f}" for coverage in coverages.values())
            print(f"  {seeds:4} seeds: worst {100 * min(coverages.values()):.1f} %  ({shown})", flush=True)
    print("Cases: " + "; ".join(PAIRS))
    print(f"Plans for the area under the learning curve, {trials:,} comparisons each:")
    print("spread, effect, seeds, power (of the opposite effect), null")
    for index, (name, (variant, baseline)) in enumerate(PAIRS.items()):
        rng = np.random.default_rng([2, index])
        arms = [arm.draw(rng, (400_000,), True) for arm in (variant, baseline)]
        spread = Spread(float(np.sqrt(arms[0].var() + arms[1].var())))
        for effect in EFFECTS:
            seeds = recommended_seeds(effect, spread, area=True)
            assert seeds is not None
            shape = (trials, seeds)
            gaps = variant.draw(rng, shape, True) - baseline.draw(rng, shape, True)
            gaps -= variant.mean(True) - baseline.mean(True)
            rates = []
            for true in (effect, -effect, 0.0):
                low, high = t_intervals(gaps + true)
                rates.append(float(((low > 0) | (high < 0)).mean()))
            power, opposite, null = (100 * rate for rate in rates)
            shown = f"{power:.1f} % ({opposite:.1f} %)  {null:.1f} %"
            print(f"  {spread.value:.2f}  {effect:+.1f}  {seeds:3}  {shown}  {name}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
