"""Scores of models on sets of problems: from one row per response to numbers with intervals and comparisons.

Shape legend: P problems of a set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tokenshift.analysis.evaluation.estimators import majority_at_k, mean_at_k, pass_at_k
from tokenshift.analysis.sampling.correctness import are_graded
from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap
from tokenshift.analysis.statistics.paired import paired_comparison
from tokenshift.analysis.statistics.pooled_means import Alike, pooled_mean, set_bootstraps, standard_error

SUMMARISED_COLUMNS = ("set", "model", "problem_id", "length", "truncated", "formatted", "correct", "vote")
"""Columns of responses that the numbers are made of; and `REWARD`, where there is one."""

REWARD = "reward"
"""The column with the rewards, and the metric of their mean, which is there where rewards other than 0 and 1 are."""

POOLED: dict[str, Alike] = {"all problems": "problems", "mean of the sets": "sets"}
"""Groups beside several sets, and whether each problem or each set (macro average) has the same weight in them."""


@dataclass(frozen=True)
class ProblemValues:
    """A model's numbers, problem by problem.

    Attributes:
        problems: Ids of the problems `(P,)`, ascending.
        responses: Number of responses.
        metrics: `(P,)` float64 by name, NaN for problems without a value: `mean@n`; `pass@k` and `majority@k` of each
            k; the mean of `reward`, where some reward is neither 0 nor 1; the means of `length` (tokens), `truncated`
            and `formatted`.
    """

    problems: np.ndarray
    responses: int
    metrics: dict[str, np.ndarray]


def problem_values(
    table: pa.Table, samples: int, ks: Sequence[int], *, voting: bool = True
) -> dict[tuple[str, str], ProblemValues]:
    """Numbers of each problem by (set, model), in the table's order.

    Responses without a verdict count for `length`, `truncated` and `formatted` alone; a problem with fewer than k
    responses with a verdict has no `pass@k` and no `majority@k`.

    Args:
        table: `SUMMARISED_COLUMNS`, one row per response.
        samples: n, the number of responses per problem.
        ks: Each k, at least 1 and at most n.
        voting: Whether answers were taken; without them no problem has a `majority@k`.
    """
    values: dict[tuple[str, str], ProblemValues] = {}
    graded = has_graded_rewards(table)
    columns = [*SUMMARISED_COLUMNS, *([REWARD] if graded else [])]
    frame = table.select(columns).to_pandas(integer_object_nulls=True)
    for (set_name, model), rows in frame.groupby(["set", "model"], sort=False):
        problems = rows.groupby("problem_id", sort=True)
        metrics: dict[str, list[float]] = {name: [] for name in _metric_names(samples, ks, graded)}
        for _, responses in problems:
            judged = responses[responses["correct"].notna()]
            correct = judged["correct"].astype(bool).tolist()
            votes = [None if vote is None else int(vote) for vote in judged["vote"]]
            n, c = np.array([len(judged)]), np.array([sum(correct)])
            metrics[f"mean@{samples}"].append(mean_at_k(n, c)[0] if len(judged) else np.nan)
            for k in ks:
                enough = len(judged) >= k
                metrics[f"pass@{k}"].append(pass_at_k(n, c, k)[0] if enough else np.nan)
                metrics[f"majority@{k}"].append(majority_at_k(votes, correct, k) if enough and voting else np.nan)
            for name in (*([REWARD] if graded else []), "length", "truncated", "formatted"):
                metrics[name].append(responses[name].mean())
        arrays = {name: np.array(numbers, dtype=float) for name, numbers in metrics.items()}
        values[str(set_name), str(model)] = ProblemValues(np.array(list(problems.groups)), len(rows), arrays)
    return values


def has_graded_rewards(table: pa.Table) -> bool:
    """Whether a table of responses has a reward that is neither 0 nor 1."""
    return REWARD in table.column_names and are_graded(table[REWARD].unique().to_pylist())


def _metric_names(samples: int, ks: Sequence[int], graded: bool) -> list[str]:
    at_k = [f"{name}@{k}" for name in ("pass", "majority") for k in ks]
    return [f"mean@{samples}", *at_k, *([REWARD] if graded else []), "length", "truncated", "formatted"]


def evaluation_summary(
    table: pa.Table, samples: int, ks: Sequence[int], *, resamples: int = 10_000, seed: int = 0, voting: bool = True
) -> dict[str, Any]:
    """Numbers of each set, and of all sets together, ready for JSON.

    Args:
        table: `SUMMARISED_COLUMNS`, one row per response, of one model or more; with two, the first is compared with
            the second.
        samples: n, the number of responses per problem.
        ks: Each k of pass@k and majority@k.
        resamples: Number of resamples of the bootstrap, by problem.
        seed: Seed of the resamples.
        voting: Whether answers were taken; without them every `majority@k` is None.

    Returns:
        `samples`, `ks`, `resamples`, `voting`, `metrics` (names in order), `models`, and `groups`, by the sets' names
        and, with several sets, by the names of `POOLED`. A group has `problems`; `responses` of each model; `models`,
        which holds by model and metric None, or `value`, `low` and `high` of the 95 % interval (None where a set has
        one problem), and the number of `problems` with a value; and with two models `comparison`, which holds by
        metric the fields of `PairedComparison`, the first model's minus the second's.

    Raises:
        ValueError: If the models did not answer the same problems.
    """
    values = problem_values(table, samples, ks, voting=voting)
    sets, models = (list(dict.fromkeys(key[index] for key in values)) for index in (0, 1))
    for name in sets:
        if any(not np.array_equal(values[name, models[0]].problems, values[name, model].problems) for model in models):
            raise ValueError(f"The models answered other problems of the set {name!r}.")
    bootstraps = set_bootstraps([len(values[name, models[0]].problems) for name in sets], resamples, seed)
    groups = {
        name: _group({model: [values[name, model]] for model in models}, [bootstrap])
        for name, bootstrap in zip(sets, bootstraps, strict=True)
    }
    if len(sets) > 1:
        everything = {model: [values[name, model] for name in sets] for model in models}
        groups |= {name: _group(everything, bootstraps, alike) for name, alike in POOLED.items()}
    return {
        "samples": samples,
        "ks": list(ks),
        "resamples": resamples,
        "voting": voting,
        "metrics": next(list(of_model.metrics) for of_model in values.values()),
        "models": models,
        "groups": groups,
    }


def _group(
    values: Mapping[str, list[ProblemValues]], bootstraps: Sequence[ProblemBootstrap], alike: Alike = "problems"
) -> dict[str, Any]:
    first = next(iter(values.values()))
    names = list(first[0].metrics)
    arrays = {
        model: {name: [in_set.metrics[name] for in_set in by_set] for name in names}
        for model, by_set in values.items()
    }
    group: dict[str, Any] = {
        "problems": sum(len(in_set.problems) for in_set in first),
        "responses": sum(in_set.responses for in_set in first),
        "models": {
            model: {name: _entry(metrics[name], bootstraps, alike) for name in names}
            for model, metrics in arrays.items()
        },
    }
    if len(arrays) == 2:
        compared, reference = arrays.values()
        group["comparison"] = {
            name: asdict(paired_comparison(compared[name], reference[name], bootstraps, alike)) for name in names
        }
    return group


def _entry(
    values: Sequence[np.ndarray], bootstraps: Sequence[ProblemBootstrap], alike: Alike
) -> dict[str, Any] | None:
    entry: dict[str, Any] | None = pooled_mean(values, bootstraps, alike).interval
    if entry is None:
        return None
    if np.isnan(standard_error(values, alike)):  # a single problem has no interval
        entry |= {"low": None, "high": None}
    return {**entry, "problems": int(sum(np.isfinite(in_set).sum() for in_set in values))}
