"""How much of what RL gained does an intervention bring or take away? From one row per response to intervals.

Everything is resampled by problem, seeds and samples pooled, with one set of resamples for all cells, so that ratios
and differences are taken resample by resample.

Shape legend: P problems, R resamples, C cells of a curve.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenshift.analysis.cross_sampling.sweep import ENDS
from tokenshift.analysis.sampling.correctness import are_graded
from tokenshift.analysis.statistics.bootstrap import LEVEL, ProblemBootstrap, Resampled

ENOUGH = 0.9
"""Recovery that counts as nearly all."""

NEEDED_FOR = {"50": 0.5, "90": ENOUGH}
"""Recoveries for which the tokens that are needed are given: name -> level."""

NEEDED_OF = ("effective_count", "effective", "intervened")
"""Quantities of a policy in which the needed tokens are given."""

FIRST = 0.1
"""The share of tokens up to which the area under recovery is taken."""

REFERENCES = ("js_top_p", "js")
"""Criteria to which areas are set in relation: the first of them that was swept."""

COLUMNS = (
    "direction",
    "criterion",
    "epsilon",
    "budget",
    "most",
    "gamma",
    "sharpening",
    "seed",
    "problem_id",
    "length",
    "correct",
    "positions",
    "effective",
    "disagreements",
)
"""Columns that `recovery_summary` reads, and `REWARD`, where there is one."""

REWARD = "reward"
"""The column with the rewards, and the quantity of their mean."""

SUMMED_COUNTS = (
    "responses",
    "judged",
    "correct",
    "tokens",
    "intervened",
    "effective",
    "disagreements",
    "covered",
    "rewarded",
    "rewards",
)

POLICY_QUANTITIES = {
    "accuracy": ("correct", "judged"),
    "length": ("tokens", "responses"),
    "intervened": ("intervened", "tokens"),
    "intervened_count": ("intervened", "responses"),
    "effective": ("effective", "tokens"),
    "effective_count": ("effective", "responses"),
    "covered": ("covered", "disagreements"),
    REWARD: ("rewards", "rewarded"),
}
"""Quantities of a policy: name -> (numerator, denominator). `REWARD` is left out where every reward is 0 or 1.

`covered` is the share of all disagreements that is replaced: effective replacements to the positions along the same
responses at which the two draws differ.
"""


class Policy(NamedTuple):
    """A policy of the sweep, its seeds pooled; the fields are as the columns of the same names."""

    direction: str
    criterion: str
    epsilon: float | None
    budget: float | None
    most: int | None
    gamma: float
    sharpening: float | None = None


def problem_sums(table: pa.Table) -> tuple[dict[Policy, dict[str, np.ndarray]], np.ndarray]:
    """Sums over the responses of each problem, `SUMMED_COUNTS` of `(P,)` per policy, and the problems' ids `(P,)`.

    Args:
        table: `COLUMNS`, one row per response.
    """
    ids, problem = np.unique(table["problem_id"].to_numpy(), return_inverse=True)
    effective = table["effective"].combine_chunks()
    hits = pc.list_flatten(effective).to_numpy(zero_copy_only=False).astype(np.int64)
    correct = table["correct"]
    replaced = np.bincount(pc.list_parent_indices(effective).to_numpy(), hits, minlength=table.num_rows)
    disagreements = table["disagreements"].to_numpy().astype(float)  # NaN in files that were made before
    known = REWARD in table.column_names
    rewards = table[REWARD].to_numpy().astype(float) if known else np.full(table.num_rows, np.nan)
    values = {
        "responses": np.ones(table.num_rows),
        "judged": pc.is_valid(correct).to_numpy().astype(float),
        "correct": pc.fill_null(correct, False).to_numpy().astype(float),
        "tokens": table["length"].to_numpy().astype(float),
        "intervened": pc.list_value_length(table["positions"]).to_numpy().astype(float),
        "effective": replaced,
        "disagreements": np.nan_to_num(disagreements),
        "covered": np.where(np.isnan(disagreements), 0.0, replaced),
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
    return area_of_first(shares, values, 1.0, end, limit=1.0)


def area_of_first(
    shares: np.ndarray,
    values: np.ndarray,
    end_share: np.ndarray | float,
    end: np.ndarray | float,
    limit: float = FIRST,
) -> np.ndarray:
    """Mean recovery `(...)` over the first tokens: the area under a curve up to a share of tokens, by that share.

    The curve is made of straight lines from (0, 0) over its points to (end_share, end), and is level beyond.

    Args:
        shares: `(..., C)`, in any order; those above `end_share` count as that.
        values: `(..., C)` recovery there.
        end_share: `(...)` share where every token is the intervention's: 1 of intervened tokens, else less.
        end: `(...)` recovery there.
        limit: the share of tokens up to which the area is taken.
    """
    last = np.asarray(end, dtype=float)[..., None]
    last_share = np.broadcast_to(np.asarray(end_share, dtype=float)[..., None], last.shape)
    x = np.concatenate([np.zeros_like(last_share), np.minimum(shares, last_share), last_share], axis=-1)
    y = np.concatenate([np.zeros_like(last), values, last], axis=-1)
    order = np.argsort(x, axis=-1, kind="stable")  # the ends stay the ends
    x, y = np.take_along_axis(x, order, -1), np.take_along_axis(y, order, -1)
    left, right = x[..., :-1], np.minimum(x[..., 1:], limit)
    width = np.maximum(right - left, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.where(x[..., 1:] > left, (y[..., 1:] - y[..., :-1]) / (x[..., 1:] - left), 0.0)
    under = (width * (y[..., :-1] + slope * width / 2)).sum(axis=-1)
    return np.asarray((under + np.maximum(limit - x[..., -1], 0) * y[..., -1]) / limit)


def tokens_needed(amounts: np.ndarray, values: np.ndarray, level: float) -> np.ndarray:
    """The smallest amount of tokens `(...)` at which a curve has a recovery, inf where it does not reach it.

    The curve is made of straight lines from (0, 0) over its points in the order given. Amounts may go back along it:
    effective replacements become fewer where an earlier one makes later ones needless.

    Args:
        amounts: `(..., C)`.
        values: `(..., C)` recovery there.
        level: above 0.
    """
    nothing = np.zeros((*amounts.shape[:-1], 1))
    x, y = np.concatenate([nothing, amounts], axis=-1), np.concatenate([nothing, values], axis=-1)
    before, after = y[..., :-1], y[..., 1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        crossing = x[..., :-1] + (level - before) / (after - before) * (x[..., 1:] - x[..., :-1])
    crosses = (before < level) != (after < level)
    reached = np.concatenate([np.where(crosses, crossing, np.inf), np.where(after >= level, x[..., 1:], np.inf)], -1)
    needed = reached.min(axis=-1, initial=np.inf)
    return np.asarray(np.where(np.isnan(values).any(axis=-1), np.nan, needed))


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
        direction, criterion, gamma, cap and sharpening: these; `needed`, for each of `NEEDED_OF` and of `NEEDED_FOR`
        the fewest tokens at which straight lines between the swept policies have that recovery, with `value`,
        `low` and `high` None where it is not reached and `reached`, the share of resamples that reach it;
        `area_intervened_10` and `area_effective_10`, the mean recovery over the first 10 % of tokens (None under a
        cap), their differences `..._difference` to those of `reference`, the first of `REFERENCES` that was swept;
        `area_intervened` and `area_effective` up to all tokens, the latter against effective replacements relative to
        those of `all`, with their differences to js's, `area_intervened_to_js` and `area_effective_to_js`; and
        `enough`: by `intervened` and `effective`, the index in `cells` of the smallest share whose recovery is at
        least 0.9, or None.

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
            (policy.direction, policy.criterion, policy.gamma, policy.sharpening): index
            for policy, index in index_of.items()
            if policy.criterion in ENDS
        }

    def whole(self, direction: str, gamma: float, sharpening: float | None) -> int:
        """The index of `all`."""
        return self._get((direction, "all", gamma, sharpening))

    def level(self, model: str) -> int:
        """The index of a cell in which a model answers alone: `none` with it as primary, else `all`."""
        alone, other = ("forward", "backward") if model == "base" else ("backward", "forward")
        key = (alone, "none", 0.0, None)
        return self._index_of[key] if key in self._index_of else self._get((other, "all", 0.0, None))

    def _get(self, key: tuple[str, str, float, float | None]) -> int:
        if key not in self._index_of:
            sharpened = "" if key[3] is None else f" and sharpening={key[3]:g}"
            raise ValueError(
                f"There is no cell {key[1]!r} of the direction {key[0]} with gamma={key[2]:g}{sharpened}."
            )
        return self._index_of[key]


def _seeds(table: pa.Table) -> dict[Policy, list[int]]:
    names = [*Policy._fields, "seed"]
    distinct = table.select(names).group_by(names).aggregate([])
    seeds: dict[Policy, list[int]] = {}
    for row in distinct.to_pylist():
        number = row.pop("seed")
        seeds.setdefault(Policy(**row), []).append(number)
    return {policy: sorted(numbers) for policy, numbers in seeds.items()}


CurveKey = tuple[str, str, float, int | None, float | None]
"""Direction, criterion, gamma, cap and sharpening of a curve."""


def _curves(
    index_of: dict[Policy, int], ends: _Ends, quantities: dict[str, list[Resampled]], recovery: Sequence[Resampled]
) -> list[dict[str, Any]]:
    policies = list(index_of)
    groups: dict[CurveKey, list[int]] = {}
    for policy, index in index_of.items():
        if policy.criterion not in ENDS:
            key = (policy.direction, policy.criterion, policy.gamma, policy.most, policy.sharpening)
            groups.setdefault(key, []).append(index)
    areas = {
        key: _areas(indices, ends.whole(key[0], key[2], key[4]), quantities, recovery)
        for key, indices in groups.items()
        if key[3] is None
    }
    curves = []
    for key, indices in groups.items():
        direction, criterion, gamma, most, sharpening = key
        curve: dict[str, Any] = {"direction": direction, "criterion": criterion, "gamma": gamma, "most": most}
        ordered = sorted(indices, key=lambda index: -(policies[index].epsilon or 0.0))
        curve |= {"sharpening": sharpening, "needed": _needed(ordered, quantities, recovery)}
        named = {name: (direction, name, gamma, most, sharpening) for name in REFERENCES}
        curve["reference"] = next((name for name, other in named.items() if other in areas), None)
        for name in ("area_intervened_10", "area_effective_10"):
            curve[name] = areas[key][name].interval if key in areas else None
            curve[f"{name}_difference"] = _difference(areas, key, named.get(curve["reference"]), name)
        for name in ("area_intervened", "area_effective"):
            curve[name] = areas[key][name].interval if key in areas else None
            curve[f"{name}_to_js"] = _difference(areas, key, named["js"], name)
        reached = [index for index in indices if recovery[index].value >= ENOUGH]
        curve["enough"] = {
            name: min(reached, key=lambda index: quantities[name][index].value, default=None)
            for name in ("intervened", "effective")
        }
        curves.append(curve)
    return curves


def _difference(
    areas: dict[CurveKey, dict[str, Resampled]], key: CurveKey, reference: CurveKey | None, name: str
) -> dict[str, float] | None:
    """A curve's area less that of its reference; None for the reference itself."""
    if key not in areas or reference not in areas or key == reference:
        return None
    return (areas[key][name] - areas[reference][name]).interval


def _areas(
    indices: list[int], whole: int, quantities: dict[str, list[Resampled]], recovery: Sequence[Resampled]
) -> dict[str, Resampled]:
    """The areas under a curve, by their names in its entry."""
    values = [recovery[index] for index in indices]
    intervened, effective = ([quantities[name][index] for index in indices] for name in ("intervened", "effective"))
    of_all = quantities["effective"][whole]
    all_tokens = Resampled(1.0, np.ones_like(of_all.samples))
    return {
        "area_intervened": _under(area, intervened, values, recovery[whole]),
        "area_effective": _under(area, [share / of_all for share in effective], values, recovery[whole]),
        "area_intervened_10": _under(area_of_first, intervened, values, all_tokens, recovery[whole]),
        "area_effective_10": _under(area_of_first, effective, values, of_all, recovery[whole]),
    }


def _under(
    function: Callable[..., np.ndarray],
    shares: Sequence[Resampled],
    values: Sequence[Resampled],
    *of_end: Resampled,
) -> Resampled:
    """A function of a curve's points and of its end, of the numbers and of each resample."""
    value = function(
        np.array([share.value for share in shares]),
        np.array([point.value for point in values]),
        *(number.value for number in of_end),
    )
    samples = function(
        np.stack([share.samples for share in shares], axis=-1),
        np.stack([point.samples for point in values], axis=-1),
        *(number.samples for number in of_end),
    )
    return Resampled(float(value), samples)


def _needed(
    ordered: Sequence[int], quantities: dict[str, list[Resampled]], recovery: Sequence[Resampled]
) -> dict[str, dict[str, dict[str, float | None] | None]]:
    """Entries of the tokens that a curve needs, by `NEEDED_OF` and `NEEDED_FOR`.

    The points are in the order of their thresholds, the highest first, as a figure's line is.
    """
    values = [recovery[index] for index in ordered]
    return {
        quantity: {
            name: _needed_entry(
                _under(partial(tokens_needed, level=level), [quantities[quantity][index] for index in ordered], values)
            )
            for name, level in NEEDED_FOR.items()
        }
        for quantity in NEEDED_OF
    }


def _needed_entry(needed: Resampled) -> dict[str, float | None] | None:
    """`value`, `low`, `high`, each None where it is not reached, and `reached`; None without recovery."""
    samples = needed.samples[~np.isnan(needed.samples)]
    if np.isnan(needed.value) or not len(samples):
        return None
    tail = (1 - LEVEL) / 2
    if np.isfinite(samples).all():
        low, high = np.quantile(samples, [tail, 1 - tail])
    else:  # between a number and inf nothing can be interpolated
        low, high = np.quantile(samples, tail, method="lower"), np.quantile(samples, 1 - tail, method="higher")
    ends = {"value": needed.value, "low": float(low), "high": float(high)}
    entry = {name: end if np.isfinite(end) else None for name, end in ends.items()}
    return {**entry, "reached": float(np.isfinite(samples).mean())}
