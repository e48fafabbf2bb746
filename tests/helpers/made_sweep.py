"""Made sweeps of cross-sampling: one response per problem, with so many right."""

from typing import Any

import pyarrow as pa

from tokenshift.analysis.cross_sampling.sweep import SweptPolicy
from tokenshift.analysis.cross_sampling.sweep_run import SWEEP_SCHEMA

PROBLEMS, LENGTH = 24, 20


def sweep_rows(cell: SweptPolicy, right: int, replaced: int, problems: int = PROBLEMS, first: int = 0) -> list[Any]:
    """One response per problem; the first `right` are correct, each with `replaced` of 4 disagreements replaced."""
    fields = ("direction", "criterion", "epsilon", "budget", "most", "gamma", "sharpening", "seed")
    return [
        {name: getattr(cell, name) for name in fields}
        | {"problem_id": first + problem, "sample_id": 0, "length": LENGTH, "correct": problem < right}
        | {"positions": list(range(replaced)), "effective": [True] * replaced, "disagreements": 4}
        for problem in range(problems)
    ]


def made_sweep(chosen: int, control: int, *, of_control: int = 2, **options: int) -> pa.Table:
    """A sweep with base 4 and RL 20 right; js_top_p and its control at the same budget with so many right."""
    given = sweep_rows(SweptPolicy("forward", "none"), 4, 0, **options)
    given += sweep_rows(SweptPolicy("forward", "all"), 20, 4, **options)
    given += sweep_rows(SweptPolicy("forward", "js_top_p", 0.1, 0.1), chosen, 2, **options)
    given += sweep_rows(SweptPolicy("forward", "random_disagreement", 0.5, 0.1), control, of_control, **options)
    return pa.Table.from_pylist(given, schema=SWEEP_SCHEMA)
