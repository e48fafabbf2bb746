"""The publication's statements on cross-sampling over several trainings of one recipe (arXiv 2603.22446, section 3).

Each training was swept by itself with the same budgets on the same problems; its thresholds are its own. Runs and
problems are crossed random effects, as for shifts: every mean is taken in each run, and its interval holds for other
runs and for other problems. Shares of accuracy that come back are judged without a ratio: nearly all of RL's gain is
back where accuracy - base - 0.9 (RL - base) lies above 0.

Shape legend: S runs, P problems.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tokenshift.analysis.cross_sampling.recovery import ENOUGH, POLICY_QUANTITIES, REWARD, Policy, problem_sums
from tokenshift.analysis.cross_sampling.sweep import DIRECTIONS, ENDS
from tokenshift.analysis.report.numbers import PERCENT, interval_text
from tokenshift.analysis.report.statements import (
    FEWEST_PROBLEMS,
    OPEN,
    of_runs,
    of_this_run,
    within,
)
from tokenshift.analysis.statistics.linearised import linearised
from tokenshift.analysis.statistics.over_runs import mean_over_runs, within_bounds

FAR = 0.25
"""The part by which effective replacements of a criterion and its control may differ to be held against each other."""

MOST_REPLACED = 0.1
"""The largest share of effectively replaced tokens that counts as few: the publication's policies replace as much."""

RESTORES = {
    "forward": f"RL's tokens at few positions (at most {PERCENT * MOST_REPLACED:g} %) give the base nearly all "
    f"({PERCENT * ENOUGH:g} %) of the gain",
    "backward": f"The base's tokens at few positions (at most {PERCENT * MOST_REPLACED:g} %) take nearly all "
    f"({PERCENT * ENOUGH:g} %) of the gain from RL",
}
"""The statements on sufficiency and necessity, by direction."""

PUBLISHED = {"forward": "8.23 to > 44 of 44.8 by 7.8 %", "backward": "44.8 to < 8.5 of 8.23 by 10.1 %"}
"""The publication's figures for DAPO on AIME24."""

TARGETED = {
    "forward": "At as many effective replacements, those of high JS bring back more than random disagreements",
    "backward": "At as many effective replacements, those of high JS take away more than random disagreements",
}
"""The statements on the control, which nobody has published, by direction."""

ALONE = {"base": (("forward", "none"), ("backward", "all")), "rl": (("backward", "none"), ("forward", "all"))}
"""The policies in which a model answers alone, by model: direction and criterion."""

SHOWN = ("accuracy", "intervened", "intervened_count", "effective", "effective_count", "covered", "length")
"""Quantities of a policy that are given over runs."""


class SweptRuns:
    """The sweeps of several trainings, by policy.

    Args:
        tables: One table per run: `COLUMNS` of `recovery`, one row per response.

    Attributes:
        sums: For each run the sums of `problem_sums`, by direction, criterion and budget.
        problems: The ids `(P,)` of the problems.

    Raises:
        ValueError: If the runs do not have the same problems.
    """

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        self.sums: list[dict[tuple[str, str, float | None], dict[str, np.ndarray]]] = []
        self.problems = np.empty(0)
        for number, table in enumerate(tables):
            sums, ids = problem_sums(table)
            if number and not np.array_equal(ids, self.problems):
                raise ValueError(f"Run {number + 1} has other problems than run 1; give sweeps of the same problems.")
            self.problems = ids
            self.sums.append(
                {(key.direction, key.criterion, key.budget): one for key, one in sums.items() if _plain(key)}
            )

    def budgets(self, direction: str, criterion: str) -> list[float]:
        """The budgets that every run has met, ascending."""
        of_runs = [{key[2] for key in sums if key[:2] == (direction, criterion)} - {None} for sums in self.sums]
        return sorted(budget for budget in set.intersection(*of_runs) if budget is not None)

    def values(self, quantity: str, direction: str, criterion: str, budget: float | None = None) -> np.ndarray | None:
        """Values `(S, P)` of a policy's quantity, a name of `POLICY_QUANTITIES`; None where a run has none."""
        above, below = POLICY_QUANTITIES[quantity]
        rows = []
        for sums in self.sums:
            one = sums.get((direction, criterion, budget))
            rows.append(None if one is None else linearised(one[above], one[below]))
        return None if any(row is None for row in rows) else np.stack([row for row in rows if row is not None])

    def level(self, model: str) -> np.ndarray | None:
        """The accuracies `(S, P)` of `base` or `rl` alone."""
        accuracies = (self.values("accuracy", direction, end) for direction, end in ALONE[model])
        return next((values for values in accuracies if values is not None), None)


def _plain(policy: Policy) -> bool:
    return policy.most is None and not policy.gamma and policy.sharpening is None


def cross_runs_summary(
    tables: Sequence[pa.Table], *, criterion: str = "js_top_p", control: str = "random_disagreement"
) -> dict[str, Any]:
    """The numbers and statements over the sweeps of several trainings, ready for JSON.

    Args:
        tables: One table per run: `COLUMNS` of `recovery`, one row per response.
        criterion: The criterion that chooses positions.
        control: The criterion that it is held against, at the same budgets.

    Returns:
        `runs` and `problems`, their numbers; `levels`, entries of `mean_over_runs` for `base`, `rl` and `gain`;
        `policies`, one dictionary per direction, criterion and budget that every run has: these and entries of
        `SHOWN`; and `statements`: `key`, `direction`, `text`, `published`, `measured`, `verdict` and `estimate`.

    Raises:
        ValueError: If the runs do not have the same problems.
    """
    runs = SweptRuns(tables)
    base, rl = runs.level("base"), runs.level("rl")
    gain = None if base is None or rl is None else rl - base
    levels = {name: mean_over_runs(values) for name, values in (("base", base), ("rl", rl), ("gain", gain))}
    policies, statements = [], []
    for direction in DIRECTIONS:
        for name in (ENDS[0], criterion, control, ENDS[1]):
            for budget in [None] if name in ENDS else runs.budgets(direction, name):
                entries = {one: _shown(runs, one, direction, name, budget) for one in SHOWN}
                if entries["accuracy"] is not None:
                    policies.append({"direction": direction, "criterion": name, "budget": budget, **entries})
        if not any(policy["direction"] == direction for policy in policies):
            continue
        statements.append(_restores(runs, direction, criterion, base, rl))
        statements.append(_targeted(runs, direction, criterion, control))
    return {
        "runs": len(runs.sums),
        "problems": len(runs.problems),
        "levels": levels,
        "policies": policies,
        "statements": statements,
    }


def _shown(runs: SweptRuns, quantity: str, direction: str, criterion: str, budget: float | None) -> Any:
    mean = mean_over_runs(runs.values(quantity, direction, criterion, budget))
    top = 1.0 if quantity in ("accuracy", "intervened", "effective", "covered", REWARD) else np.inf
    return None if mean is None else within_bounds(mean, top)


def _restores(
    runs: SweptRuns, direction: str, criterion: str, base: np.ndarray | None, rl: np.ndarray | None
) -> dict[str, Any]:
    """Whether the largest budget of few tokens brings back, or takes away, nearly all of the gain."""
    statement = {"key": "restores", "text": RESTORES[direction], "published": PUBLISHED[direction]}
    budgets = [budget for budget in runs.budgets(direction, criterion) if budget <= MOST_REPLACED]
    accuracy = runs.values("accuracy", direction, criterion, max(budgets)) if budgets else None
    if accuracy is None or base is None or rl is None:
        return _judged(runs, direction, statement, "no such policy in every run", None)
    done = accuracy - base if direction == "forward" else rl - accuracy
    difference = mean_over_runs(done - ENOUGH * (rl - base))
    start, target = (base, rl) if direction == "forward" else (rl, base)
    shares = {
        name: interval_text(
            _shown(runs, name, direction, criterion, max(budgets)), scale=PERCENT, digits=".1f", unit=" %"
        )
        for name in ("accuracy", "effective", "covered")
    }
    words = (
        f"accuracy from {PERCENT * start.mean():.1f} to {shares['accuracy']} of {PERCENT * target.mean():.1f} % by "
        f"{shares['effective']} effective, {shares['covered']} of all disagreements"
    )
    return _judged(runs, direction, statement, words, difference)


def _targeted(runs: SweptRuns, direction: str, criterion: str, control: str) -> dict[str, Any]:
    """Whether the criterion's positions do more than random disagreements, on average over the budgets that both
    meet nearly alike."""
    statement = {"key": "targeted", "text": TARGETED[direction], "published": "-"}
    differences, amounts = [], []
    for budget in sorted(set(runs.budgets(direction, criterion)) & set(runs.budgets(direction, control))):
        chosen, random = (runs.values("accuracy", direction, name, budget) for name in (criterion, control))
        replaced = [runs.values("effective", direction, name, budget) for name in (criterion, control)]
        shares = [PERCENT * float(values.mean()) for values in replaced if values is not None]
        if chosen is None or random is None or abs(shares[0] - shares[1]) > FAR * max(shares):
            continue  # replacing far more than the other is no fair comparison
        differences.append(chosen - random if direction == "forward" else random - chosen)
        amounts.append(f"{shares[0]:.2f} % of tokens against {shares[1]:.2f} %")
    if not differences:
        return _judged(runs, direction, statement, "no budget that both criteria meet nearly alike in every run", None)
    difference = mean_over_runs(np.mean(differences, axis=0))
    points = interval_text(difference, scale=PERCENT, digits="+.1f", unit=" points")
    return _judged(runs, direction, statement, f"{points} of accuracy, by {', '.join(amounts)}", difference)


def _judged(
    runs: SweptRuns, direction: str, statement: Mapping[str, str], measured: str, difference: dict[str, Any] | None
) -> dict[str, Any]:
    """A statement that holds where the whole interval of a difference lies above 0."""
    count, verdict = len(runs.sums), within(difference, above=0.0)
    if len(runs.problems) < FEWEST_PROBLEMS:
        measured, verdict = f"{measured}; of {len(runs.problems)} problems", OPEN
    said = of_this_run(verdict) if count == 1 else of_runs(verdict, count)
    return {**statement, "direction": direction, "measured": measured, "verdict": said, "estimate": difference}
