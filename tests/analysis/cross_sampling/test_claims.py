"""The statement that the mixture can beat RL: which policies it is about, and when it is seen."""

from typing import Any

import pyarrow as pa
import pytest

from tokenshift.analysis.cross_sampling.claims import NO_POLICY, mixture_statement
from tokenshift.analysis.cross_sampling.sweep import SweptPolicy
from tokenshift.analysis.cross_sampling.sweep_run import SWEEP_SCHEMA

PROBLEMS = 20


def rows(cell: SweptPolicy, right: int | None, problems: int = PROBLEMS) -> list[dict[str, Any]]:
    """One response per problem, of which the first `right` are correct; None leaves all unjudged."""
    fields = ("direction", "criterion", "epsilon", "budget", "most", "gamma", "sharpening", "seed")
    return [
        {name: getattr(cell, name) for name in fields}
        | {"problem_id": problem, "sample_id": 0, "length": 5, "positions": [], "effective": []}
        | {"correct": None if right is None else problem < right}
        for problem in range(problems)
    ]


def sweep(*mixed: tuple[SweptPolicy, int], rl: int | None = 10, problems: int = PROBLEMS) -> pa.Table:
    given = [*rows(SweptPolicy("forward", "none"), 2, problems), *rows(SweptPolicy("forward", "all"), rl, problems)]
    for cell, right in mixed:
        given += rows(cell, right, problems)
    return pa.Table.from_pylist(given, schema=SWEEP_SCHEMA)


@pytest.mark.parametrize(
    ("right", "verdict", "measured"),
    [
        (19, "seen", "js > 0.2: 95.0 % against RL's 50.0 %, +45.0 points ["),
        (12, "open", "js > 0.2: 60.0 % against RL's 50.0 %, +10.0 points ["),
        (10, "open", "js > 0.2: 50.0 % against RL's 50.0 %, +0.0 points [+0.0, +0.0]"),
        (9, "open", "js > 0.2: 45.0 % against RL's 50.0 %, -5.0 points ["),  # one problem of 20
        (1, "not seen", "js > 0.1: 15.0 % against RL's 50.0 %, -35.0 points ["),
    ],
)
def test_the_best_threshold_is_held_against_rl(right: int, verdict: str, measured: str) -> None:
    found = mixture_statement(
        sweep((SweptPolicy("forward", "js", 0.1), 3), (SweptPolicy("forward", "js", 0.2), right))
    )
    assert found.verdict == verdict
    assert found.measured.startswith(measured), found.measured
    assert found.measured.endswith("the best of 2 thresholds")


def test_other_policies_are_not_the_publications_mixture() -> None:
    others = [
        SweptPolicy("forward", "random_disagreement", 0.5),
        SweptPolicy("forward", "js", 0.1, most=1),
        SweptPolicy("forward", "js", 0.1, gamma=0.5),
        SweptPolicy("forward", "js", 0.1, sharpening=2.0),
        SweptPolicy("forward", "js", 0.0),
        SweptPolicy("backward", "js", 0.1),
    ]
    found = mixture_statement(sweep(*((cell, 20) for cell in others)))
    assert (found.measured, found.verdict) == (NO_POLICY, "open")
    both = sweep((SweptPolicy("forward", "js", 0.1), 19), (SweptPolicy("forward", "js_top_p", 0.3), 5))
    assert mixture_statement(both).measured.startswith("js_top_p > 0.3: 25.0 %")


def test_few_problems_or_no_verdicts_leave_it_open() -> None:
    cell = SweptPolicy("forward", "js", 0.1)
    few = mixture_statement(sweep((cell, 4), rl=0, problems=4))
    assert few.verdict == "open"
    assert few.measured.endswith("; 1 threshold; of 4 problems")
    assert mixture_statement(sweep((cell, 4), rl=None)).measured == "no verdicts on responses"
