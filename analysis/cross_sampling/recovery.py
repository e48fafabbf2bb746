"""How much of what RL gained does an intervention bring or take away? From a row a response to numbers with intervals.

Everything is resampled by problem, seeds and samples pooled, with one set of resamples for all cells, so that ratios
and differences are taken resample by resample.

Shape legend: P problems, R resamples, C cells of a curve.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
"""What `recovery_summary` reads."""

COUNTS = ("responses", "judged", "correct", "tokens", "intervened", "effective")

QUANTITIES = {
    "accuracy": ("correct", "judged"),
    "length": ("tokens", "responses"),
    "intervened": ("intervened", "tokens"),
    "intervened_count": ("intervened", "responses"),
    "effective": ("effective", "tokens"),
    "effective_count": ("effective", "responses"),
}
"""Of a cell: by name, which sum is divided by which."""


class Policy(NamedTuple):
    """A cell, seeds pooled; fields as the columns of the same names."""

    direction: str
    criterion: str
    epsilon: float | None
    budget: float | None
    most: int | None
    gamma: float


def problem_sums(table: pa.Table) -> tuple[dict[Policy, dict[str, np.ndarray]], np.ndarray]:
    """Sums over the responses of each problem, `COUNTS` of `(P,)` a policy, and the problems' ids `(P,)`.

    Args:
        table: `COLUMNS`, a row a response.
    """
    ids, problem = np.unique(table["problem_id"].to_numpy(), return_inverse=True)
    effective = table["effective"].combine_chunks()
    hits = pc.list_flatten(effective).to_numpy(zero_copy_only=False).astype(np.int64)
    correct = table["correct"]
    values = {
        "responses": np.ones(table.num_rows),
        "judged": pc.is_valid(correct).to_numpy().astype(float),
        "correct": pc.fill_null(correct, False).to_numpy().astype(float),
        "tokens": table["length"].to_numpy().astype(float),
        "intervened": pc.list_value_length(table["positions"]).to_numpy().astype(float),
        "effective": np.bincount(pc.list_parent_indices(effective).to_numpy(), hits, minlength=table.num_rows),
    }
    rows: dict[Policy, list[int]] = {}
    for row, policy in enumerate(zip(*(table[name].to_pylist() for name in Policy._fields), strict=True)):
        rows.setdefault(Policy(*policy), []).append(row)
    sums = {
        policy: {name: np.bincount(problem[own], values[name][own], minlength=len(ids)) for name in COUNTS}
        for policy, own in rows.items()
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
    """Numbers of all cells and curves, ready for JSON. Where it says entry: `value`, `low`, `high` (95 %), or None.

    Args:
        table: `COLUMNS`, a row a response, with the cells `none` and `all` of each direction; cells that differ by
            seed alone are pooled.
        resamples: R.
        seed: of the resamples.

    Returns:
        `problems`; `levels`, entries of `base`, `rl` and `gain` = RL - base; `defined`, whether the gain's interval
        lies above 0: if not, there is no recovery. `cells`, a dictionary a policy: `Policy`'s fields, `seeds`,
        `responses`, `tokens`, entries of `QUANTITIES`, and `recovery`, 0 at the primary's accuracy and 1 at the
        intervention's: forward (accuracy - base) / gain, backward (RL - accuracy) / gain. `curves`, a dictionary a
        direction, criterion, gamma and cap: these, entries `area_intervened` and `area_effective` (against the share
        of tokens, and against effective replacements relative to those of `all`; None under a cap), their differences
        to js's `area_intervened_to_js`, `area_effective_to_js`, and `enough`: by `intervened` and `effective`, the
        place in `cells` of the smallest share whose recovery is at least 0.9, or None.

    Raises:
        ValueError: if a direction lacks its ends.
    """
    sums, ids = problem_sums(table)
    bootstrap = ProblemBootstrap(len(ids), resamples, seed)
    policies = list(sums)
    totals = {name: np.stack([sums[policy][name] for policy in policies], axis=-1) for name in COUNTS}  # (P, cells)
    found: dict[str, list[Resampled]] = {}
    for name, (above, below) in QUANTITIES.items():
        samples = bootstrap.ratios(totals[above], totals[below])
        with np.errstate(invalid="ignore", divide="ignore"):
            values = totals[above].sum(axis=0) / totals[below].sum(axis=0)
        found[name] = [Resampled(float(value), samples[:, place]) for place, value in enumerate(values)]

    place_of = {policy: place for place, policy in enumerate(policies)}
    ends = _Ends(place_of)
    base, rl = (found["accuracy"][ends.level(model)] for model in ("base", "rl"))
    gain = rl - base
    entry = gain.interval
    defined = entry is not None and entry["low"] > 0
    none = Resampled(float("nan"), np.full(resamples, np.nan))
    recovery = [none] * len(policies)
    if defined:
        recovery = [
            (accuracy - base if policy.direction == "forward" else rl - accuracy) / gain
            for policy, accuracy in zip(policies, found["accuracy"], strict=True)
        ]
    seeds = _seeds(table)
    cells = [
        {
            **policy._asdict(),
            "seeds": seeds[policy],
            "responses": int(sums[policy]["responses"].sum()),
            "tokens": int(sums[policy]["tokens"].sum()),
            **{name: each[place].interval for name, each in found.items()},
            "recovery": recovery[place].interval,
        }
        for place, policy in enumerate(policies)
    ]
    return {
        "problems": len(ids),
        "levels": {"base": base.interval, "rl": rl.interval, "gain": entry},
        "defined": defined,
        "cells": cells,
        "curves": _curves(place_of, ends, found, recovery),
    }


class _Ends:
    """Where the ends of curves are among the cells."""

    def __init__(self, places: dict[Policy, int]) -> None:
        self._places = {
            (policy.direction, policy.criterion, policy.gamma): place
            for policy, place in places.items()
            if policy.criterion in ("none", "all")
        }

    def whole(self, direction: str, gamma: float) -> int:
        """Of `all`."""
        return self._get((direction, "all", gamma))

    def level(self, model: str) -> int:
        """Where a model answers alone: as a primary in whose way nothing comes or, the same, as the only one."""
        alone, other = ("forward", "backward") if model == "base" else ("backward", "forward")
        key = (alone, "none", 0.0)
        return self._places[key] if key in self._places else self._get((other, "all", 0.0))

    def _get(self, key: tuple[str, str, float]) -> int:
        if key not in self._places:
            raise ValueError(f"There is no cell {key[1]!r} of the direction {key[0]} with gamma={key[2]:g}.")
        return self._places[key]


def _seeds(table: pa.Table) -> dict[Policy, list[int]]:
    names = [*Policy._fields, "seed"]
    distinct = table.select(names).group_by(names).aggregate([])
    found: dict[Policy, list[int]] = {}
    for row in distinct.to_pylist():
        number = row.pop("seed")
        found.setdefault(Policy(**row), []).append(number)
    return {policy: sorted(numbers) for policy, numbers in found.items()}


def _curves(
    places: dict[Policy, int], ends: _Ends, found: dict[str, list[Resampled]], recovery: Sequence[Resampled]
) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str, float, int | None], list[int]] = {}
    for policy, place in places.items():
        if policy.criterion not in ("none", "all"):
            key = (policy.direction, policy.criterion, policy.gamma, policy.most)
            groups.setdefault(key, []).append(place)
    areas: dict[tuple[str, str, float, int | None], dict[str, Resampled]] = {}
    for key, own in groups.items():
        direction, _criterion, gamma, most = key
        if most is not None:
            continue
        whole = ends.whole(direction, gamma)
        scaled = [each / found["effective"][whole] for each in found["effective"]]
        areas[key] = {
            "area_intervened": _area([found["intervened"][place] for place in own], own, recovery, whole),
            "area_effective": _area([scaled[place] for place in own], own, recovery, whole),
        }
    curves = []
    for key, own in groups.items():
        direction, criterion, gamma, most = key
        js = areas.get((direction, "js", gamma, most))
        curve: dict[str, Any] = {"direction": direction, "criterion": criterion, "gamma": gamma, "most": most}
        for name in ("area_intervened", "area_effective"):
            each = areas[key][name] if key in areas else None
            curve[name] = None if each is None else each.interval
            apart = None if each is None or js is None or criterion == "js" else each - js[name]
            curve[f"{name}_to_js"] = None if apart is None else apart.interval
        reached = [place for place in own if recovery[place].value >= ENOUGH]
        curve["enough"] = {
            name: min(reached, key=lambda place: found[name][place].value, default=None)
            for name in ("intervened", "effective")
        }
        curves.append(curve)
    return curves


def _area(shares: Sequence[Resampled], own: Sequence[int], recovery: Sequence[Resampled], whole: int) -> Resampled:
    values = [recovery[place] for place in own]
    value = area(
        np.array([each.value for each in shares]), np.array([each.value for each in values]), recovery[whole].value
    )
    samples = area(
        np.stack([each.samples for each in shares], axis=-1),
        np.stack([each.samples for each in values], axis=-1),
        recovery[whole].samples,
    )
    return Resampled(float(value), samples)
