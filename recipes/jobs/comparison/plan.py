"""The plan of a comparison: how many seeds show a given difference, from a former comparison or a known spread."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenshift.analysis.comparison.outcomes import OUTCOMES
from tokenshift.analysis.comparison.planning import Spread, pilot_spread, recommended_seeds
from tokenshift.analysis.storage.json_files import read_json
from tokenshift.recipes.jobs.comparison.cell_results import REWARD_FUNC, cell_result
from tokenshift.recipes.jobs.comparison.early import pilot_of

FACTORS = (0.5, 1.0, 2.0)
"""The true differences that a plan is told for, times the one that was asked for."""


@dataclass(frozen=True)
class Plan:
    """The seeds that show a difference.

    Attributes:
        spread: The spread of differences between variants, in points.
        source: Where it is from, in words.
        outcome: The outcome, a name of `OUTCOMES`.
        effect: The true difference that was asked for, in points.
        comparisons: The number of variants that the pilot compares with its baseline; 1 where it is not known.
        seeds: For each true difference in points, the seeds for one comparison and for the first step of Holm's method
            over all `comparisons`; None where no number that the search tries is enough.
    """

    spread: Spread
    source: str
    outcome: str
    effect: float
    comparisons: int
    seeds: dict[float, tuple[int | None, int | None]]

    @property
    def recommended(self) -> int | None:
        """The seeds for one comparison."""
        return self.seeds[self.effect][0]


def make_plan(given: str, effect: float, outcome: str) -> Plan:
    """The plan for a difference.

    Args:
        given: A spread in points, or a former comparison: its folder, or its `comparison.json`.
        effect: The true difference in points.
        outcome: A name of `OUTCOMES`.

    Raises:
        ValueError: for a number that is not positive, or a pilot that is not there or does not hold the outcome.
    """
    pilot = pilot_of(given)
    if isinstance(pilot, Path):
        spread, source, comparisons = _of_pilot(pilot, outcome)
    else:
        spread, source, comparisons = Spread(pilot), "given as known", 1
    area = OUTCOMES[outcome].averages_training
    seeds = {
        effect * factor: (
            recommended_seeds(effect * factor, spread, area),
            recommended_seeds(effect * factor, spread, area, comparisons),
        )
        for factor in FACTORS
    }
    return Plan(spread, source, outcome, effect, comparisons, seeds)


def _of_pilot(file: Path, outcome: str) -> tuple[Spread, str, int]:
    where, folder = f"plan={str(file)!r}", file.parent
    try:
        summary = read_json(file)
        rows, baseline = summary["variants"], summary["baseline"]
        by_variant = [_by_seed(row, folder, summary, outcome) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where} is damaged, or is no comparison: {' '.join(str(error).split())}.") from error
    try:
        spread = pilot_spread(by_variant)
    except ValueError as error:
        raise ValueError(
            f"{where}: {error}. The outcome is {outcome}; another is --outcome final_accuracy."
        ) from error
    others = sum(row["variant"] != baseline for row in rows)
    points = Spread(100 * spread.value, spread.degrees, spread.variants, spread.seeds)
    return points, f"of {spread.variants} variants x {spread.seeds} seeds in {file}", others


def _by_seed(row: Mapping[str, Any], folder: Path, summary: Mapping[str, Any], outcome: str) -> dict[str, Any]:
    """A variant's outcome by seed: from the summary, or of a comparison made before, from its cells' files."""
    key = OUTCOMES[outcome].key
    if key in row and not _spans_rewards(summary, outcome):
        return dict(row[key]["by_seed"])
    reward_func, number = summary["evaluation"].get("reward_func", REWARD_FUNC), OUTCOMES[outcome].number
    cells = {seed: folder / "cells" / f"{row['variant']}-seed{seed}" for seed in row["seeds"]}
    return {str(seed): number(cell_result(row["variant"], seed, cell, reward_func)) for seed, cell in cells.items()}


def _spans_rewards(summary: Mapping[str, Any], outcome: str) -> bool:
    """Whether areas of a comparison made before are of rewards of -1 and 1, and not in points of accuracy."""
    rewards = summary.get("outcome", {}).get("rewards", [])
    return outcome == "learning_area" and "reward_levels" not in summary and "signed_accuracy_reward" in rewards
