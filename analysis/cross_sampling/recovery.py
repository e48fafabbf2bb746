"""How much of what RL gained does an intervention bring or take away? From one row per response to intervals.

Everything is resampled by problem, seeds and samples pooled, with one set of resamples for all cells, so that ratios
and differences are taken resample by resample.

Shape legend: P problems, R resamples, C cells of a curve.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenshift.analysis.cross_sampling.sweep import ENDS
from tokenshift.analysis.sampling.correctness import are_graded
from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap, Resampled

ENOUGH = 0.9
"""Recovery that counts as nearly all."""

COLUMNS = (
    "direction",
    "criterion",
    "epsilon",
    "budget",
    "most",
    "gamma",
    "seed",
    "problem_id",
    "length",
    "correct",
    "positions",
    "effective",
)
"""Columns that `recovery_summary` reads, and `REWARD`, where there is one."""

REWARD = "reward"
"""The column with the rewards, and the quantity of their mean."""

SUMMED_COUNTS = ("responses", "judged", "correct", "tokens", "intervened", "effective", "rewarded", "rewards")

POLICY_QUANTITIES = {
    "accuracy": ("correct", "judged"),
    "length": ("tokens", "responses"),
    "intervened": ("intervened", "tokens"),
    "intervened_count": ("intervened", "responses"),
    "effective": ("effective", "tokens"),
    "effective_count": ("effective", "responses"),
    REWARD: ("rewards", "rewarded"),
}
"""Quantities of a policy: name -> (numerator, denominator). `REWARD` is left out where every reward is 0 or 1."""


class Policy(NamedTuple):
    """A policy of the sweep, its seeds pooled; the fields are as the columns of the same names."""

    direction: str
    criterion: str
    epsilon: float | None
    budget: float | None
    most: int | None
    gamma: float


def problem_sums(table: pa.Table) -> tuple[dict[Policy, dict[str, np.ndarray]], np.ndarray]:
    """Sums over the responses of each problem, `SUMMED_COUNTS` of `(P,)` per policy, and the problems' ids `(P,)`.

    Args:
        table: `COLUMNS`, one row per response.
    """
    ids, problem = np.unique(table["problem_id"].to_numpy(), return_inverse=True)
    effective = table["effective"].combine_chunks()
    hits = pc.list_flatten(effective).to_numpy(zero_copy_only=False).astype(np.int64)
    correct = table["correct"]
    known = REWARD in table.column_names
    rewards = table[REWARD].to_numpy().astype(float) if known else np.full(table.num_rows, np.nan)
    values = {
        "responses": np.ones(table.num_rows),
        "judged": pc.is_valid(correct).to_numpy().astype(float),
        "correct": pc.fill_null(correct, False).to_numpy().astype(float),
        "tokens": table["length"].to_numpy().astype(float),
        "intervened": pc.list_value_length(table["positions"]).to_numpy().astype(float),
        "effective": np.bincount(pc.list_parent_indices(effective).to_numpy(), hits, minlength=table.num_rows),
        "rewarded": np.isfinite(rewards).astype(float),
        "rewards": np.nan_to_num(rewards),
    }
    rows: dict[Policy, list[int]] = {}
    for row, policy in enumerate(zip(*(table[name].to_pylist() for name in Policy._fields), strict=True)):
        rows.setdefault(Policy(*policy), []).append(row)
    sums = {
        policy: {
            name: np.bincount(problem[rows_of_policy], values[name][rows_of_policy], minlength=len(ids))
            for name in SUMMED_COUNTS
        }
        for policy, rows_of_policy in rows.items()
    }
    return sums, ids


def area(shares: np.ndarray, values: np.ndarray, end: np.ndarray | float) -> np.ndarray:
    """Area `(...)` under the straight lines from (0, 0) over a curve's points to (1, end).

    Args:
        shares: `(..., C)`, in any order; those above 1 count as 1.
        values: `(..., C)` recovery there.
        end: `(...)` recovery where every token is the intervention's.
    """
    last = np.asarray(end, dtype=float)[..., None]
    x = np.concatenate([np.zeros_like(last), np.clip(shares, 0, 1), np.ones_like(last)], axis=-1)
    y = np.concatenate([np.zeros_like(last), values, last], axis=-1)
    order = np.argsort(x, axis=-1, kind="stable")  # the ends stay the ends
    x, y = np.take_along_axis(x, order, -1), np.take_along_axis(y, order, -1)
    return np.asarray(((y[..., 1:] + y[..., :-1]) / 2 * np.diff(x, axis=-1)).sum(axis=-1))


def recovery_summary(table: pa.Table, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Numbers of all cells and curves, ready for JSON. An entry is `value`, `low`, `high` (95 %), or None.

    Args:
        table: `COLUMNS`, one row per response, with the cells `none` and `all` of each direction; cells that differ by
            seed alone are pooled.
        resamples: R.
        seed: the seed of the resamples.

    Returns:
        `problems`; `levels`, entries of `base`, `rl` and `gain` = RL - base; `defined`, whether the gain's interval
        lies above 0: if not, there is no recovery; `graded`, whether some reward is neither 0 nor 1. `cells`, a
        dictionary per policy: `Policy`'s fields, `seeds`,
        `responses`, `tokens`, entries of `POLICY_QUANTITIES`, and `recovery`, 0 at the primary's accuracy and 1 at the
        intervention's: forward (accuracy - base) / gain, backward (RL - accuracy) / gain. `curves`, one dictionary per
        direction, criterion, gamma and cap: these, entries `area_intervened` and `area_effective` (against the share
        of tokens, and against effective replacements relative to those of `all`; None under a cap), their differences
        to js's `area_intervened_to_js`, `area_effective_to_js`, and `enough`: by `intervened` and `effective`, the
        index in `cells` of the smallest share whose recovery is at least 0.9, or None.

    Raises:
        ValueError: if a direction lacks its ends.
    """
    sums, ids = problem_sums(table)
    bootstrap = ProblemBootstrap(len(ids), resamples, seed)
    policies = list(sums)
    totals = {
        name: np.stack([sums[policy][name] for policy in policies], axis=-1) for name in SUMMED_COUNTS
    }  # (P, cells)
    quantities: dict[str, list[Resampled]] = {}
    graded = REWARD in table.column_names and are_graded(table[REWARD].unique().to_pylist())
    for name, (above, below) in POLICY_QUANTITIES.items():
        if name == REWARD and not graded:
            continue
        samples = bootstrap.ratios(totals[above], totals[below])
        with np.errstate(invalid="ignore", divide="ignore"):
            values = totals[above].sum(axis=0) / totals[below].sum(axis=0)
        quantities[name] = [Resampled(float(value), samples[:, index]) for index, value in enumerate(values)]

    index_of = {policy: index for index, policy in enumerate(policies)}
    ends = _Ends(index_of)
    base, rl = (quantities["accuracy"][ends.level(model)] for model in ("base", "rl"))
    gain = rl - base
    entry = gain.interval
    defined = entry is not None and entry["low"] > 0
    none = Resampled(float("nan"), np.full(resamples, np.nan))
    recovery = [none] * len(policies)
    if defined:
        recovery = [
            (accuracy - base if policy.direction == "forward" else rl - accuracy) / gain
            for policy, accuracy in zip(policies, quantities["accuracy"], strict=True)
        ]
    seeds = _seeds(table)
    cells = [
        {
            **policy._asdict(),
            "seeds": seeds[policy],
            "responses": int(sums[policy]["responses"].sum()),
            "tokens": int(sums[policy]["tokens"].sum()),
            **{name: resampled[index].interval for name, resampled in quantities.items()},
            "recovery": recovery[index].interval,
        }
        for index, policy in enumerate(policies)
    ]
    return {
        "problems": len(ids),
        "levels": {"base": base.interval, "rl": rl.interval, "gain": entry},
        "defined": defined,
        "graded": graded,
        "cells": cells,
        "curves": _curves(index_of, ends, quantities, recovery),
    }


class _Ends:
    """Indices of the curves' ends among the cells."""

    def __init__(self, index_of: dict[Policy, int]) -> None:
        self._index_of = {
            (policy.direction, policy.criterion, policy.gamma): index
            for policy, index in index_of.items()
            if policy.criterion in ENDS
        }

    def whole(self, direction: str, gamma: float) -> int:
        """The index of `all`."""
        return self._get((direction, "all", gamma))

    def level(self, model: str) -> int:
        """The index of a cell in which a model answers alone: `none` with it as primary, else `all`."""
        alone, other = ("forward", "backward") if model == "base" else ("backward", "forward")
        key = (alone, "none", 0.0)
        return self._index_of[key] if key in self._index_of else self._get((other, "all", 0.0))

    def _get(self, key: tuple[str, str, float]) -> int:
        if key not in self._index_of:
            raise ValueError(f"There is no cell {key[1]!r} of the direction {key[0]} with gamma={key[2]:g}.")
        return self._index_of[key]


def _seeds(table: pa.Table) -> dict[Policy, list[int]]:
    names = [*Policy._fields, "seed"]
    distinct = table.select(names).group_by(names).aggregate([])
    seeds: dict[Policy, list[int]] = {}
    for row in distinct.to_pylist():
        number = row.pop("seed")
        seeds.setdefault(Policy(**row), []).append(number)
    return {policy: sorted(numbers) for policy, numbers in seeds.items()}


def _curves(
    index_of: dict[Policy, int], ends: _Ends, quantities: dict[str, list[Resampled]], recovery: Sequence[Resampled]
) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str, float, int | None], list[int]] = {}
    for policy, index in index_of.items():
        if policy.criterion not in ENDS:
            key = (policy.direction, policy.criterion, policy.gamma, policy.most)
            groups.setdefault(key, []).append(index)
    areas: dict[tuple[str, str, float, int | None], dict[str, Resampled]] = {}
    for key, indices in groups.items():
        direction, _criterion, gamma, most = key
        if most is not None:
            continue
        whole = ends.whole(direction, gamma)
        scaled = [effective / quantities["effective"][whole] for effective in quantities["effective"]]
        areas[key] = {
            "area_intervened": _area([quantities["intervened"][index] for index in indices], indices, recovery, whole),
            "area_effective": _area([scaled[index] for index in indices], indices, recovery, whole),
        }
    curves = []
    for key, indices in groups.items():
        direction, criterion, gamma, most = key
        js = areas.get((direction, "js", gamma, most))
        curve: dict[str, Any] = {"direction": direction, "criterion": criterion, "gamma": gamma, "most": most}
        for name in ("area_intervened", "area_effective"):
            under = areas[key][name] if key in areas else None
            curve[name] = None if under is None else under.interval
            apart = None if under is None or js is None or criterion == "js" else under - js[name]
            curve[f"{name}_to_js"] = None if apart is None else apart.interval
        reached = [index for index in indices if recovery[index].value >= ENOUGH]
        curve["enough"] = {
            name: min(reached, key=lambda index: quantities[name][index].value, default=None)
            for name in ("intervened", "effective")
        }
        curves.append(curve)
    return curves


def _area(shares: Sequence[Resampled], indices: Sequence[int], recovery: Sequence[Resampled], whole: int) -> Resampled:
    values = [recovery[index] for index in indices]
    value = area(
        np.array([share.value for share in shares]), np.array([point.value for point in values]), recovery[whole].value
    )
    samples = area(
        np.stack([share.samples for share in shares], axis=-1),
        np.stack([point.samples for point in values], axis=-1),
        recovery[whole].samples,
    )
    return Resampled(float(value), samples)
