"""Means over the tokens of a per-token table, over all of them or in bins: what is averaged, and how.

Each measure is pure: from a batch of whole responses to the terms of its means. `summary.py` adds the sums of terms up
over batches and problems, `probe_summary.py` takes the means of one table, and the trainer adds the same sums up over
its micro-steps; all of them divide sums by counts here. Sources: arXiv 2603.22446, sections 3 (characterisation) and 5
(mechanics).
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tokenshift.analysis.divergence.token_statistics import OVERLAPS
from tokenshift.analysis.shift.answer_start import answer_start
from tokenshift.analysis.thresholds import (
    HIGH,
    IMPROBABLE,
    JS_BINS,
    LOW_ENTROPY,
    NEAR_ZERO,
    POSITION_BINS,
    POSITION_NAMES,
    SPARSITY,
    js_bins,
)
from tokenshift.analysis.token_table.columns import column, response_parts
from tokenshift.analysis.token_table.measure import SHIFT_MEASURES
from tokenshift.analysis.token_table.reader import verdicts

DISTANCES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 2048, 4096)
"""Lower ends of the bins of distances from the start and from the end of a response, in tokens."""

ANSWER_DISTANCES = (-64, -32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 16, 32)
"""Lower ends of the bins of distances from the token in which the final answer begins; negative before it."""

RANK_LIMITS = (1, 2, 3, 5, 10)
"""Ranks under the base within which RL's most probable token is counted."""

SumsAndCounts = tuple[np.ndarray, np.ndarray]
"""Sums of the terms in each bin, and how many terms there are, float64, of the same shape."""


@dataclass(frozen=True)
class BinnedTerms:
    """Terms of means: the mean of bin b is over the terms that are in it.

    Attributes:
        labels: names of the B bins.
        values: the terms, `(M,)`.
        bins: `(M,)` int, the bin of each term; a term outside 0 to B - 1 is in none.
        rows: `(M,)` int, the row of the batch that each term belongs to; None where term i belongs to row i.
    """

    labels: Sequence[str]
    values: np.ndarray
    bins: np.ndarray
    rows: np.ndarray | None = None


Measure = Callable[[pa.Table, str], Mapping[str, BinnedTerms]]
"""From a batch, and the column that counts as the divergence (`js` or `js_top_p`), to terms by the mean's name."""


# From terms to means ---------------------------------------------------------------------------------------------


def binned_sums(terms: BinnedTerms, groups: np.ndarray | None = None, count: int = 1) -> SumsAndCounts:
    """Sums and counts of the terms by group and bin, `(count, B)` each.

    Args:
        terms: M terms in B bins.
        groups: `(N,)` int, the group of each row of the batch, 0 to `count` - 1 (a problem, say); None for one group.
        count: number of groups.
    """
    size = len(terms.labels)
    inside = (terms.bins >= 0) & (terms.bins < size)
    cells = terms.bins[inside]
    if groups is not None:
        cells = (groups if terms.rows is None else groups[terms.rows])[inside] * size + cells
    values = np.asarray(terms.values, dtype=np.float64)[inside]
    sums = np.bincount(cells, values, minlength=count * size).reshape(count, size)
    counts = np.bincount(cells, minlength=count * size).reshape(count, size).astype(np.float64)
    return sums, counts


def means_of_sums(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means in the shape of the arguments, NaN for a bin without a term."""
    with np.errstate(invalid="ignore"):
        return sums / counts


def filled_means(labels: Sequence[str], sums: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Means by label; bins without a term are left out.

    Args:
        labels: names of the B bins.
        sums, counts: B numbers each, of any shape.
    """
    means = means_of_sums(sums.reshape(-1), counts.reshape(-1)).tolist()
    return {label: mean for label, mean, count in zip(labels, means, counts.flat, strict=True) if count}


def entropy_and_position_means(
    entropy_policy: SumsAndCounts, entropy_reference: SumsAndCounts, js_by_position: SumsAndCounts, separator: str
) -> dict[str, float]:
    """Mean entropies by bin of JS, and mean JS by part of the response, nats, under the names of logged metrics.

    Args:
        entropy_policy, entropy_reference: sums and counts of entropies in the bins `JS_BINS`.
        js_by_position: sums and counts of JS in the parts `POSITION_NAMES` of responses.
        separator: stands in the names: `entropy{separator}policy_high`, `position{separator}07`.

    Returns:
        The means by name; bins without a token are left out.
    """
    policy, reference = filled_means(JS_BINS, *entropy_policy), filled_means(JS_BINS, *entropy_reference)
    means: dict[str, float] = {}
    for name in policy:
        means[f"entropy{separator}policy_{name}"] = policy[name]
        means[f"entropy{separator}reference_{name}"] = reference[name]
    positions = filled_means(POSITION_NAMES, *js_by_position)
    return means | {f"position{separator}{name}": mean for name, mean in positions.items()}


# From a batch to terms -------------------------------------------------------------------------------------------


def side_by_side(labels: Sequence[str], columns: Sequence[np.ndarray], mask: np.ndarray | None = None) -> BinnedTerms:
    """Terms of the means of several columns `(N,)`, over the rows of a mask, or over all."""
    rows = np.arange(len(columns[0])) if mask is None else np.flatnonzero(mask)
    values = np.concatenate([np.asarray(values, dtype=np.float64)[rows] for values in columns])
    return BinnedTerms(labels, values, np.repeat(np.arange(len(labels)), len(rows)), np.tile(rows, len(labels)))


def sparsity_terms(table: pa.Table, measure: str) -> dict[str, BinnedTerms]:
    """Share of tokens whose divergence lies below each threshold of `SPARSITY`, and above 0.1."""
    js = column(table, measure)
    labels = [f"< {threshold:g}" for threshold in SPARSITY] + [f"> {HIGH:g}"]
    return {"sparsity": side_by_side(labels, [*(js < threshold for threshold in SPARSITY), js > HIGH])}


def both_measures_terms(table: pa.Table, measure: str) -> dict[str, BinnedTerms]:
    """Share of tokens that are exactly 0, near zero and high by the truncated JS and by the full one, side by side."""
    names = [name for name in SHIFT_MEASURES if name in table.column_names]
    values = [column(table, name) for name in names]
    return {
        "zero": side_by_side(names, [js == 0 for js in values]),
        "near_zero": side_by_side(names, [js < NEAR_ZERO for js in values]),
        "high": side_by_side(names, [js > HIGH for js in values]),
    }


def mean_terms(table: pa.Table, measure: str) -> dict[str, BinnedTerms]:
    """Mean divergences and entropies, nats."""
    names = [name for name in _MEANS if name in table.column_names]
    return {"mean": side_by_side(names, [column(table, name) for name in names])}


_MEANS = ("js", "js_top_p", "forward_kl", "reverse_kl", "entropy_base", "entropy_rl")


def relative_position_terms(table: pa.Table, measure: str) -> dict[str, BinnedTerms]:
    """Mean divergence, and share above 0.1, by position over the response's length."""
    labels = [f"{part / POSITION_BINS:g}" for part in range(POSITION_BINS)]
    return _by_position(table, measure, "relative", labels, response_parts(table))


def distance_terms(table: pa.Table, measure: str) -> dict[str, BinnedTerms]:
    """Mean divergence, and share above 0.1, by distance in tokens from the start, the end and the final answer."""
    position = column(table, "position").astype(np.int64)
    distances = (
        ("from_start", DISTANCES, position),
        ("from_end", DISTANCES, column(table, "length") - 1 - position),
        ("from_answer", ANSWER_DISTANCES, _after_answer(table)),
    )
    terms: dict[str, BinnedTerms] = {}
    for name, lower_ends, values in distances:
        bins = np.searchsorted(lower_ends, values, side="right") - 1
        terms |= _by_position(table, measure, name, _distance_labels(lower_ends), bins)
    return terms


def _by_position(
    table: pa.Table, measure: str, name: str, labels: Sequence[str], bins: np.ndarray
) -> dict[str, BinnedTerms]:
    js = column(table, measure)
    return {
        f"position_{name}": BinnedTerms(labels, js, bins),
        f"position_{name}_high": BinnedTerms(labels, js > HIGH, bins),
    }


def _distance_labels(lower_ends: Sequence[int]) -> list[str]:
    ends = [*(end - 1 for end in lower_ends[1:]), None]
    return [
        f"{start}+" if end is None else f"{start}" if start == end else f"{start} to {end}"
        for start, end in zip(lower_ends, ends, strict=True)
    ]


NO_ANSWER = np.iinfo(np.int64).min
"""Stands for the distance from the final answer in a response that has none; it lies in no bin."""


def _after_answer(table: pa.Table) -> np.ndarray:
    """Distance of each token from the one in which its response's final answer begins, `(N,)` int64."""
    position = column(table, "position").astype(np.int64)
    tokens = np.array(table["token"].to_pylist(), dtype=object)
    starts = np.flatnonzero(position == 0)
    distance = np.full(len(position), NO_ANSWER)
    for start, end in zip(starts, [*starts[1:], len(position)], strict=True):
        answer = answer_start(list(tokens[start:end]))
        if answer is not None:
            distance[start:end] = position[start:end] - answer
    return distance


def entropy_terms(table: pa.Table, measure: str) -> dict[str, BinnedTerms]:
    """Mean entropies in bins of the divergence, nats, and the share of tokens below `LOW_ENTROPY` there."""
    bins, base = js_bins(column(table, measure)), column(table, "entropy_base")
    return {
        "entropy_base": BinnedTerms(JS_BINS, base, bins),
        "entropy_rl": BinnedTerms(JS_BINS, column(table, "entropy_rl"), bins),
        "low_entropy_base": BinnedTerms(JS_BINS, base < LOW_ENTROPY, bins),
    }


def mechanics_terms(table: pa.Table, measure: str) -> dict[str, BinnedTerms]:
    """Top-k overlap, base rank of RL's top-1, share of it that is improbable under base; all and high-JS tokens."""
    rank, improbable = column(table, "rl_top1_rank_base"), column(table, "rl_top1_prob_base") < IMPROBABLE
    terms = {}
    for name, mask in _all_and_high(table, measure).items():
        overlaps = [column(table, f"overlap_{k}") for k in OVERLAPS]
        terms[f"overlap_{name}"] = side_by_side([str(k) for k in OVERLAPS], overlaps, mask)
        labels = [f"<= {limit}" for limit in RANK_LIMITS]
        terms[f"rank_{name}"] = side_by_side(labels, [rank <= limit for limit in RANK_LIMITS], mask)
        terms[f"improbable_{name}"] = side_by_side([f"< {IMPROBABLE:g}"], [improbable], mask)
    return terms


def mass_terms(table: pa.Table, measure: str) -> dict[str, BinnedTerms]:
    """Probability by the base's rank under both models, and how much of it moved; all and high-JS tokens."""
    if "mass_rl_1" not in table.column_names:
        return {}
    pairs = itertools.pairwise(OVERLAPS)
    labels = ["1", *(f"{low + 1} to {high}" if high > low + 1 else f"{high}" for low, high in pairs), "> 10"]
    terms = {}
    for name, mask in _all_and_high(table, measure).items():
        by_model = {}
        for model in ("base", "rl"):
            cumulative = [np.zeros(table.num_rows), *(column(table, f"mass_{model}_{k}") for k in OVERLAPS)]
            by_model[model] = np.diff([*cumulative, np.ones(table.num_rows)], axis=0)  # (6, N)
        by_model["moved"] = by_model["rl"] - by_model["base"]
        for model, masses in by_model.items():
            terms[f"mass_{model}_{name}"] = side_by_side(labels, list(masses), mask)
    return terms


def response_terms(table: pa.Table, measure: str) -> dict[str, BinnedTerms]:
    """Accuracy, length (tokens), number of high-JS tokens of a response, and share of responses that have one."""
    starts = np.flatnonzero(column(table, "position") == 0)
    high = np.add.reduceat((column(table, measure) > HIGH).astype(np.int64), starts)
    correct = verdicts(table)[starts]
    judged = np.flatnonzero(~np.isnan(correct))
    columns = [correct[judged], column(table, "length")[starts], high, high > 0]
    rows = [starts[judged], starts, starts, starts]
    return {
        "response": BinnedTerms(
            ["accuracy", "length", "high tokens", "with a high token"],
            np.concatenate([np.asarray(values, dtype=np.float64) for values in columns]),
            np.repeat(np.arange(4), [len(of_column) for of_column in rows]),
            np.concatenate(rows),
        )
    }


def _all_and_high(table: pa.Table, measure: str) -> dict[str, np.ndarray | None]:
    return {"all": None, "high": column(table, measure) > HIGH}


MEASURES: tuple[Measure, ...] = (
    sparsity_terms,
    both_measures_terms,
    mean_terms,
    relative_position_terms,
    distance_terms,
    entropy_terms,
    mechanics_terms,
    mass_terms,
    response_terms,
)
"""The measures that `summarise` takes unless told otherwise."""
