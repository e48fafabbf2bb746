"""Made-up results of a comparison's models."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tokenshift.analysis.comparison.curves import LearningCurve
from tokenshift.analysis.comparison.results import SHIFT, CellResult
from tokenshift.analysis.comparison.summary import comparison_summary
from tokenshift.analysis.token_table.measure import SHIFT_MEASURES

SEEDS = [0, 1, 2]
MOVED_NAMES = [f"{measure}_{name}" for measure in SHIFT_MEASURES for name in SHIFT]
MANY = ["dapo", *(f"variant_of_a_long_name_{place}" for place in range(12))]


def made(variant: str, seed: int, gain: float = 0.0, sets: int = 1) -> CellResult:
    rng = np.random.default_rng([seed, *variant.encode()])
    rewards = [(step, 0.5 + 0.004 * step + 0.05 * rng.normal()) for step in range(4, 65, 4)]
    kinds = {
        kind: {name: float(rng.random() * (0.9 if "frac" in name else 0.2)) for name in MOVED_NAMES}
        for kind in ("own", "fixed")
    }
    return CellResult(
        variant,
        seed,
        {f"set {place}": rng.binomial(4, 0.6 + gain, 20 + 10 * place) / 4 for place in range(sets)},
        kinds,
        {
            "value": float(rng.random()),
            "low": 0.0,
            "high": 1.0,
            "intervened": 0.02,
            "effective": 0.01,
            "accuracy": 0.8,
        },
        rewards,
        [(step, 0.5 + 0.005 * step) for step in range(0, 65, 16)],
    )


def learned(
    results: list[CellResult], gains: Mapping[str, float] | None = None, reward: str = "accuracy_reward", end: int = 48
) -> list[CellResult]:
    """The same models with a learning curve each, of three generations, and an area that is higher by so much."""
    gains, curves = gains or {}, []
    for cell in results:
        noise = np.random.default_rng([1, cell.seed, *cell.variant.encode()]).normal(0, 0.01, 3)
        values = [float(0.5 + 0.1 * index + gains.get(cell.variant, 0) + noise[index]) for index in range(3)]
        curves.append(replace(cell, learning=LearningCurve(reward, [0, 8, 16], values, end)))
    return curves


def summary_of(
    results: list[CellResult], variants: list[str], seeds: list[int] = SEEDS, replication: Sequence[int] = ()
) -> dict[str, Any]:
    found = comparison_summary(results, variants, "dapo", seeds, replication)
    return {
        "name": "mine",
        **found,
        "evaluation": {"datasets": ["pocket"], "top_p": 1.0},
        "recovery": {"budgets": [0.02], "criteria": ["js_top_p"]},
        "distinguishing": {name: {"beta": 0.0, "normalize_weights": True} for name in variants},
    }


def everything(variants: list[str] = MANY, seeds: list[int] = SEEDS, sets: int = 1) -> list[CellResult]:
    return [made(name, seed, 0.3 * (place == 1), sets) for seed in seeds for place, name in enumerate(variants)]
