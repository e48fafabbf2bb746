"""Summary of a comparison of training variants: outcomes over seeds, differences from the baseline, what moved.

Shape legend: S seeds, P problems of a set.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from tokenshift.analysis.comparison.coverage import approximate_coverage
from tokenshift.analysis.comparison.curves import are_comparable, in_accuracy
from tokenshift.analysis.comparison.outcomes import AREAS, DEFAULT_OUTCOME, FINAL_ACCURACY, OUTCOMES
from tokenshift.analysis.comparison.results import OWN_TRAJECTORIES, SHIFT, CellResult
from tokenshift.analysis.comparison.verdicts import verdicts
from tokenshift.analysis.statistics.crossed_design import CrossedDifference, crossed_difference, seed_difference
from tokenshift.analysis.statistics.paired import holm
from tokenshift.analysis.token_table.measure import DEFAULT_MEASURE, SHIFT_MEASURES, check_measure

Number = Callable[[CellResult], float | None]


def _shift(name: str) -> Number:
    return lambda cell: cell.shift.get(OWN_TRAJECTORIES, {}).get(name)


MOVED: dict[str, Number] = {
    **{f"{measure}_{name}": _shift(f"{measure}_{name}") for measure in SHIFT_MEASURES for name in SHIFT},
    "recovery": lambda cell: None if cell.recovery is None else cell.recovery["value"],
}
"""Numbers of a trained model that say what training moved: name -> function of the model's results."""


def comparison_summary(
    results: Sequence[CellResult],
    variants: Sequence[str],
    baseline: str,
    seeds: Sequence[int],
    replication_seeds: Sequence[int] = (),
    outcome: str = DEFAULT_OUTCOME,
    measure: str = DEFAULT_MEASURE,
) -> dict[str, Any]:
    """The numbers of all variants, ready for JSON.

    Args:
        results: The results of all cells that are done.
        variants: Names of all variants, in the order of the table.
        baseline: The variant that the others are compared with.
        seeds: All seeds of the discovery.
        replication_seeds: All seeds of the replication, none of them among `seeds`; they are never pooled.
        outcome: What the verdicts are about, a name of `OUTCOMES`. Where no cell has it, it is the final accuracy.
        measure: The measure of what training moved that comes first, a name of `SHIFT_MEASURES`. Where a probe is too
            old to have it, it is the other one.

    Returns:
        A dictionary with `baseline`, `outcome` (its `name`; the one `asked` for; and of the learning curve the
        `rewards` that it is of and the `updates` of the trainings, one each where all are alike), `reward_levels` (by
        reward of the learning curve, its values for a wrong and a right completion, by which areas are in points of
        accuracy; None where it has more than two), `measure`, `replication` (None
        without replication seeds, else what the following are with them), `verdicts` (see `verdicts`), and
        `seeds`, `sets` (the number of problems by set), `unjudged` (the number of
        problems by set that are left out, since some model has no verdict on them), `reward_range` (the smallest and
        the largest reward, where some are neither 0 nor 1; else None), and `variants`, a list with one
        dictionary per variant: `variant`, `seeds` (those with a result), `missing` (those without), `accuracy` (the
        macro average over the sets), `learning_area` and `held_out_area` where some model has them, `reward` (the mean
        reward in the same way as the accuracy, where some are neither 0 nor 1),
        `sets` (the accuracy on each set), and the numbers of `MOVED`. Each number is a dictionary with `value` (mean
        over seeds), `sd` (standard deviation over seeds, n - 1; None for a single seed),
        `by_seed`, and `difference` from the baseline: the fields of `CrossedDifference`, and `p_holm`, the p-value
        corrected over the variants; None for the baseline itself, or where there is nothing to compare. The
        differences of outcomes also have `coverage`: None where intervals of so many seeds hold the true difference in
        at least 94 % of simulated comparisons, and else the share in which they do. `accuracy`
        also has the ends of its own 95 % interval, `low` and `high`, and so have the areas.

    Raises:
        ValueError: if the outcome or the measure is not known, or a seed is in both sets of seeds.
    """
    if outcome not in OUTCOMES:
        raise ValueError(f"outcome={outcome!r} is not known; choose one of {', '.join(OUTCOMES)}.")
    check_measure(measure)
    both = sorted(set(seeds) & set(replication_seeds))
    if both:
        raise ValueError(f"The seed {both[0]} is in seeds and in replication_seeds; they are never pooled.")
    learned = in_accuracy([cell.learning for cell in results])
    results = [replace(cell, learning=curve) for cell, curve in zip(results, learned, strict=True)]
    curves = [curve for curve in learned if curve is not None]
    rewards = sorted({curve.reward for curve in curves})
    areas = [name for name in AREAS if any(OUTCOMES[name].number(cell) is not None for cell in results)]
    if not are_comparable(rewards):  # areas of different rewards are no outcome of one comparison
        areas = [name for name in areas if name != "learning_area"]
    used = outcome if outcome in (*areas, FINAL_ACCURACY) else FINAL_ACCURACY
    summary: dict[str, Any] = {
        "baseline": baseline,
        "outcome": {
            "name": used,
            "asked": outcome,
            "rewards": rewards,
            "updates": sorted({curve.end for curve in curves}),
        },
        "reward_levels": {
            curve.reward: None if curve.levels is None else list(curve.levels)
            for curve in sorted(curves, key=lambda curve: curve.reward)
        },
        "measure": _measured(results, measure),
        **_of_seeds(results, variants, baseline, seeds, areas),
        "replication": _of_seeds(results, variants, baseline, replication_seeds, areas) if replication_seeds else None,
    }
    return {**summary, "verdicts": verdicts(summary)}


def _measured(results: Sequence[CellResult], measure: str) -> str:
    """The measure, where all probes have it, else the other one."""
    probed = [numbers for cell in results for numbers in cell.shift.values()]
    if all(f"{measure}_p99" in numbers for numbers in probed):
        return measure
    return next(name for name in SHIFT_MEASURES if name != measure)


def _of_seeds(
    every_result: Sequence[CellResult],
    variants: Sequence[str],
    baseline: str,
    seeds: Sequence[int],
    areas: Sequence[str],
) -> dict[str, Any]:
    """The numbers of one set of seeds."""
    results = [cell for cell in every_result if cell.seed in set(seeds)]
    judged = _judged(results)
    graded = any(cell.graded for cell in results) and all(cell.reward for cell in results)
    ranges = [cell.reward_range for cell in results if cell.reward_range is not None]
    cells = {(cell.variant, cell.seed): cell for cell in results}
    rows = []
    for variant in variants:
        done = {seed: cells[variant, seed] for seed in seeds if (variant, seed) in cells}
        reference = {seed: cells[baseline, seed] for seed in done if (baseline, seed) in cells}
        row: dict[str, Any] = {
            "variant": variant,
            "seeds": list(done),
            "missing": [seed for seed in seeds if seed not in done],
            "accuracy": _entry({seed: _accuracy(cell, judged, list(judged)) for seed, cell in done.items()}),
            "sets": {
                name: _entry({seed: _accuracy(cell, judged, [name]) for seed, cell in done.items()}) for name in judged
            },
        }
        level = _crossed([(cell, None) for cell in done.values()], judged, list(judged))
        ends = {"low": level.low, "high": level.high}
        row["accuracy"] |= {name: None if end is None else min(1.0, max(0.0, end)) for name, end in ends.items()}
        for name in areas:
            number = OUTCOMES[name].number
            row[name] = _entry({seed: number(cell) for seed, cell in done.items()})
            known = [value for value in row[name]["by_seed"].values() if value is not None]
            over_seeds = seed_difference(np.array(known, dtype=float))
            row[name] |= {"low": over_seeds.low, "high": over_seeds.high}
        for name, number in MOVED.items():
            row[name] = _entry({seed: number(cell) for seed, cell in done.items()})
        if graded:
            row["reward"] = _entry({seed: _macro_mean(cell.reward, judged) for seed, cell in done.items()})
        if variant != baseline:
            pairs = [(done[seed], cell) for seed, cell in reference.items()]
            row["accuracy"]["difference"] = _difference_entry(_crossed(pairs, judged, list(judged)), FINAL_ACCURACY)
            for name in areas:
                row[name]["difference"] = _difference_entry(_paired(pairs, OUTCOMES[name].number), name)
            for name in judged:
                row["sets"][name]["difference"] = _difference_entry(_crossed(pairs, judged, [name]))
            for name, number in MOVED.items():
                row[name]["difference"] = _difference_entry(_paired(pairs, number))
            if graded:
                row["reward"]["difference"] = _difference_entry(_crossed(pairs, judged, list(judged), "reward"))
        rows.append(row)
    _correct([row["accuracy"] for row in rows])
    for name in judged:
        _correct([row["sets"][name] for row in rows])
    for name in [*areas, *MOVED, *(["reward"] if graded else [])]:
        _correct([row[name] for row in rows])
    return {
        "seeds": list(seeds),
        "sets": {name: int(known.sum()) for name, known in judged.items()},
        "unjudged": {name: int((~known).sum()) for name, known in judged.items()},
        "reward_range": [min(low for low, _ in ranges), max(high for _, high in ranges)] if graded else None,
        "variants": rows,
    }


def _judged(results: Sequence[CellResult]) -> dict[str, np.ndarray]:
    """Whether every model has a verdict on a problem: `(P,)` for each set by name."""
    judged: dict[str, np.ndarray] = {}
    for cell in results:
        for name, correct in cell.correct.items():
            known = np.isfinite(correct)
            judged[name] = judged[name] & known if name in judged else known
    return judged


def _accuracy(cell: CellResult, judged: Mapping[str, np.ndarray], sets: Sequence[str]) -> float | None:
    return _macro_mean(cell.correct, {name: judged[name] for name in sets})


def _macro_mean(values: Mapping[str, np.ndarray], judged: Mapping[str, np.ndarray]) -> float | None:
    """The macro average over the sets of values by problem, of the problems that every model has a verdict on."""
    if not all(known.any() for known in judged.values()):
        return None
    return float(np.mean([values[name][known].mean() for name, known in judged.items()]))


def _entry(by_seed: Mapping[int, float | None]) -> dict[str, Any]:
    values = [value for value in by_seed.values() if value is not None]
    return {
        "value": float(np.mean(values)) if values else None,
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "by_seed": {str(seed): value for seed, value in by_seed.items()},
        "difference": None,
    }


Pairs = Sequence[tuple[CellResult, CellResult | None]]
"""Pairs of a variant's model and the baseline's of the same seed, or None to look at the variant alone."""


def _crossed(
    pairs: Pairs, judged: Mapping[str, np.ndarray], sets: Sequence[str], quantity: str = "correct"
) -> CrossedDifference:
    if not pairs:
        return crossed_difference([])
    return crossed_difference(
        [
            np.stack([_values(cell, quantity, name) - _values(other, quantity, name) for cell, other in pairs])[
                :, judged[name]
            ]
            for name in sets
        ]
    )


def _values(cell: CellResult | None, quantity: str, name: str) -> np.ndarray | float:
    """The `(P,)` values of a set: the shares of correct responses, or the mean rewards; 0 without a model."""
    if cell is None:
        return 0.0
    return (cell.correct if quantity == "correct" else cell.reward)[name]


def _paired(pairs: Sequence[tuple[CellResult, CellResult]], number: Number) -> CrossedDifference:
    both = [(number(cell), number(other)) for cell, other in pairs]
    known = [value - reference for value, reference in both if value is not None and reference is not None]
    return seed_difference(np.array(known, dtype=float))


def _difference_entry(result: CrossedDifference, outcome: str | None = None) -> dict[str, Any] | None:
    """The entry of a difference; that of an outcome, by its name, says whether its interval is approximate."""
    if result.difference is None:
        return None
    entry: dict[str, Any] = {**asdict(result), "p_holm": None}
    if outcome is not None:
        area = OUTCOMES[outcome].averages_training
        entry["coverage"] = None if result.low is None else approximate_coverage(result.seeds, area)
    return entry


def _correct(entries: Sequence[dict[str, Any]]) -> None:
    """Set `p_holm` of the differences that have a p-value."""
    differences = [entry["difference"] for entry in entries if entry["difference"] is not None]
    tested = [difference for difference in differences if difference["p_value"] is not None]
    for difference, adjusted in zip(tested, holm([difference["p_value"] for difference in tested]), strict=True):
        difference["p_holm"] = float(adjusted)
