"""Numbers of a comparison of training variants: means over seeds, differences to the baseline, what moved.

Shape legend: S seeds, P problems of a set.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from tokenshift.analysis.comparison.results import OWN, SHIFT, CellResult
from tokenshift.analysis.statistics.crossed_design import CrossedDifference, crossed_difference, seed_difference
from tokenshift.analysis.statistics.paired import holm

Number = Callable[[CellResult], float | None]


def _shift(name: str) -> Number:
    return lambda cell: cell.shift.get(OWN, {}).get(name)


MOVED: dict[str, Number] = {
    **{f"js_{name}": _shift(name) for name in SHIFT},
    "recovery": lambda cell: None if cell.recovery is None else cell.recovery["value"],
}
"""What moved, by name: each a number of a trained model."""


def comparison_summary(
    results: Sequence[CellResult], variants: Sequence[str], baseline: str, seeds: Sequence[int]
) -> dict[str, Any]:
    """Numbers of all variants, ready for JSON.

    Args:
        results: of the cells that there are.
        variants: all, in the order of the table.
        baseline: which of them the others are compared with.
        seeds: all.

    Returns:
        `baseline`, `seeds`, `sets` (problems by name), `unjudged` (problems left out by set, since some model has no
        verdict on them), `variants`: a dictionary each with `variant`, `seeds` (those there are), `missing`,
        `accuracy` (mean over the sets, each alike), `sets` (of each), and `MOVED`'s, each a dictionary with `value`
        (mean over seeds), `sd` (over seeds, n - 1; None for one), `by_seed`, and `difference` to the baseline
        (`CrossedDifference`'s fields, `p_holm`, corrected over the variants); None for the baseline, or where there is
        nothing to compare. `accuracy` has the ends of its own interval too, `low` and `high`.
    """
    judged = _judged(results)
    cells = {(cell.variant, cell.seed): cell for cell in results}
    rows = []
    for variant in variants:
        own = {seed: cells[variant, seed] for seed in seeds if (variant, seed) in cells}
        reference = {seed: cells[baseline, seed] for seed in own if (baseline, seed) in cells}
        row: dict[str, Any] = {
            "variant": variant,
            "seeds": list(own),
            "missing": [seed for seed in seeds if seed not in own],
            "accuracy": _entry({seed: _accuracy(cell, judged, list(judged)) for seed, cell in own.items()}),
            "sets": {
                name: _entry({seed: _accuracy(cell, judged, [name]) for seed, cell in own.items()}) for name in judged
            },
        }
        level = _crossed([(cell, None) for cell in own.values()], judged, list(judged))
        ends = {"low": level.low, "high": level.high}
        row["accuracy"] |= {name: None if end is None else min(1.0, max(0.0, end)) for name, end in ends.items()}
        for name, number in MOVED.items():
            row[name] = _entry({seed: number(cell) for seed, cell in own.items()})
        if variant != baseline:
            pairs = [(own[seed], cell) for seed, cell in reference.items()]
            row["accuracy"]["difference"] = _shown(_crossed(pairs, judged, list(judged)))
            for name in judged:
                row["sets"][name]["difference"] = _shown(_crossed(pairs, judged, [name]))
            for name, number in MOVED.items():
                row[name]["difference"] = _shown(_paired(pairs, number))
        rows.append(row)
    _correct([row["accuracy"] for row in rows])
    for name in judged:
        _correct([row["sets"][name] for row in rows])
    for name in MOVED:
        _correct([row[name] for row in rows])
    return {
        "baseline": baseline,
        "seeds": list(seeds),
        "sets": {name: int(known.sum()) for name, known in judged.items()},
        "unjudged": {name: int((~known).sum()) for name, known in judged.items()},
        "variants": rows,
    }


def _judged(results: Sequence[CellResult]) -> dict[str, np.ndarray]:
    """Whether every model has a verdict on a problem, `(P,)` of each set."""
    found: dict[str, np.ndarray] = {}
    for cell in results:
        for name, correct in cell.correct.items():
            known = np.isfinite(correct)
            found[name] = found[name] & known if name in found else known
    return found


def _accuracy(cell: CellResult, judged: Mapping[str, np.ndarray], sets: Sequence[str]) -> float | None:
    if not all(judged[name].any() for name in sets):
        return None
    return float(np.mean([cell.correct[name][judged[name]].mean() for name in sets]))


def _entry(by_seed: Mapping[int, float | None]) -> dict[str, Any]:
    values = [value for value in by_seed.values() if value is not None]
    return {
        "value": float(np.mean(values)) if values else None,
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "by_seed": {str(seed): value for seed, value in by_seed.items()},
        "difference": None,
    }


Pairs = Sequence[tuple[CellResult, CellResult | None]]
"""A variant's model and the baseline's of the same seed, or None to look at the variant alone."""


def _crossed(pairs: Pairs, judged: Mapping[str, np.ndarray], sets: Sequence[str]) -> CrossedDifference:
    if not pairs:
        return crossed_difference([])
    return crossed_difference(
        [
            np.stack([own.correct[name] - (other.correct[name] if other else 0.0) for own, other in pairs])[
                :, judged[name]
            ]
            for name in sets
        ]
    )


def _paired(pairs: Sequence[tuple[CellResult, CellResult]], number: Number) -> CrossedDifference:
    both = [(number(own), number(other)) for own, other in pairs]
    known = [own - other for own, other in both if own is not None and other is not None]
    return seed_difference(np.array(known, dtype=float))


def _shown(found: CrossedDifference) -> dict[str, Any] | None:
    return None if found.difference is None else {**asdict(found), "p_holm": None}


def _correct(entries: Sequence[dict[str, Any]]) -> None:
    tested = [
        each["difference"] for each in entries if each["difference"] and each["difference"]["p_value"] is not None
    ]
    for each, adjusted in zip(tested, holm([each["p_value"] for each in tested]), strict=True):
        each["p_holm"] = float(adjusted)
