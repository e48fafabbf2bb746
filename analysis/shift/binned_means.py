r"""What is measured on the rows of a per-token table: means of values, over all rows or in bins of them.

Each function is pure: from a batch of whole responses to the terms of its means. `summary.py` adds terms up over
batches and problems. Sources: arXiv 2603.22446, sections 3 (characterisation) and 5 (mechanics).
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tokenshift.analysis.divergence.token_statistics import OVERLAPS
from tokenshift.analysis.shift.answer_start import answer_start
from tokenshift.analysis.thresholds import HIGH, IMPROBABLE, JS_BINS, LOW_ENTROPY, POSITION_BINS, SPARSITY
from tokenshift.analysis.token_table.columns import column, js_bins, position_bins
from tokenshift.analysis.token_table.reader import verdicts

DISTANCES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 2048, 4096)
"""Lower ends of bins of distances, in tokens."""

RANKS = (1, 2, 3, 5, 10)
AROUND = (-64, -32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 16, 32)
"""Lower ends of bins of tokens after the final answer's begin; before it they are negative."""


@dataclass(frozen=True)
class BinnedTerms:
    """Means to be: the mean of bin b is over the terms that are in it.

    Attributes:
        labels: of the B bins.
        values: `(M,)`.
        bins: `(M,)` int, -1 for a term that is in none.
        rows: `(M,)` int, the batch's row of each term; None where term i is of row i.
    """

    labels: Sequence[str]
    values: np.ndarray
    bins: np.ndarray
    rows: np.ndarray | None = None


Measure = Callable[[pa.Table, str], Mapping[str, BinnedTerms]]
"""From a batch, and the column that counts as the divergence (`js` or `js_top_p`), to terms by name."""


def _side_by_side(labels: Sequence[str], columns: Sequence[np.ndarray], mask: np.ndarray | None = None) -> BinnedTerms:
    """Means of several columns `(N,)` over the rows of a mask, or over all."""
    rows = np.arange(len(columns[0])) if mask is None else np.flatnonzero(mask)
    values = np.concatenate([np.asarray(each, dtype=np.float64)[rows] for each in columns])
    return BinnedTerms(labels, values, np.repeat(np.arange(len(labels)), len(rows)), np.tile(rows, len(labels)))


def sparsity(table: pa.Table, measure: str) -> dict[str, BinnedTerms]:
    """Share of tokens whose divergence lies below each threshold, and above 0.1."""
    js = column(table, measure)
    labels = [f"< {threshold:g}" for threshold in SPARSITY] + [f"> {HIGH:g}"]
    return {"sparsity": _side_by_side(labels, [*(js < threshold for threshold in SPARSITY), js > HIGH])}


def means(table: pa.Table, measure: str) -> dict[str, BinnedTerms]:
    """Mean divergences and entropies, nats."""
    names = [name for name in _MEANS if name in table.column_names]
    return {"mean": _side_by_side(names, [column(table, name) for name in names])}


_MEANS = ("js", "js_top_p", "forward_kl", "reverse_kl", "entropy_base", "entropy_rl")


def positions(table: pa.Table, measure: str) -> dict[str, BinnedTerms]:
    """Mean divergence, and share above 0.1, by place: relative, from the start, from the end, around the answer."""
    js, high = column(table, measure), column(table, measure) > HIGH
    position = column(table, "position").astype(np.int64)
    places = {
        "relative": ([f"{part / POSITION_BINS:g}" for part in range(POSITION_BINS)], position_bins(table)),
        "from_start": (_distance_labels(DISTANCES), _bin(position, DISTANCES)),
        "from_end": (_distance_labels(DISTANCES), _bin(column(table, "length") - 1 - position, DISTANCES)),
        "from_answer": (_distance_labels(AROUND), _bin(_after_answer(table), AROUND)),
    }
    found = {}
    for name, (labels, bins) in places.items():
        found[f"position_{name}"] = BinnedTerms(labels, js, bins)
        found[f"position_{name}_high"] = BinnedTerms(labels, high, bins)
    return found


def _bin(values: np.ndarray, lower: Sequence[int]) -> np.ndarray:
    return np.searchsorted(lower, values, side="right") - 1


def _distance_labels(lower: Sequence[int]) -> list[str]:
    ends = [*(end - 1 for end in lower[1:]), None]
    return [
        f"{start}+" if end is None else f"{start}" if start == end else f"{start} to {end}"
        for start, end in zip(lower, ends, strict=True)
    ]


NOWHERE = np.iinfo(np.int64).min
"""Distance to an answer that the response does not have."""


def _after_answer(table: pa.Table) -> np.ndarray:
    position = column(table, "position").astype(np.int64)
    tokens = np.array(table["token"].to_pylist(), dtype=object)
    starts = np.flatnonzero(position == 0)
    found = np.full(len(position), NOWHERE)
    for start, end in zip(starts, [*starts[1:], len(position)], strict=True):
        answer = answer_start(list(tokens[start:end]))
        if answer is not None:
            found[start:end] = position[start:end] - answer
    return found


def entropies(table: pa.Table, measure: str) -> dict[str, BinnedTerms]:
    """Mean entropies in bins of the divergence, nats; share of tokens with less than `LOW_ENTROPY` there."""
    bins, base = js_bins(column(table, measure)), column(table, "entropy_base")
    return {
        "entropy_base": BinnedTerms(JS_BINS, base, bins),
        "entropy_rl": BinnedTerms(JS_BINS, column(table, "entropy_rl"), bins),
        "low_entropy_base": BinnedTerms(JS_BINS, base < LOW_ENTROPY, bins),
    }


def mechanics(table: pa.Table, measure: str) -> dict[str, BinnedTerms]:
    """Top-k overlap, base rank of RL's top-1, share of it that is improbable under base; all and high-JS tokens."""
    rank, improbable = column(table, "rl_top1_rank_base"), column(table, "rl_top1_prob_base") < IMPROBABLE
    found = {}
    for name, mask in _everywhere_and_high(table, measure).items():
        overlaps = [column(table, f"overlap_{k}") for k in OVERLAPS]
        found[f"overlap_{name}"] = _side_by_side([str(k) for k in OVERLAPS], overlaps, mask)
        labels = [f"<= {limit}" for limit in RANKS]
        found[f"rank_{name}"] = _side_by_side(labels, [rank <= limit for limit in RANKS], mask)
        found[f"improbable_{name}"] = _side_by_side([f"< {IMPROBABLE:g}"], [improbable], mask)
    return found


def masses(table: pa.Table, measure: str) -> dict[str, BinnedTerms]:
    """Probability by the base's rank under both models, and how much of it moved; all and high-JS tokens."""
    if "mass_rl_1" not in table.column_names:
        return {}
    labels = ["1", *(f"{low + 1} to {high}" if high > low + 1 else f"{high}" for low, high in _pairs()), "> 10"]
    found = {}
    for name, mask in _everywhere_and_high(table, measure).items():
        by_model = {}
        for model in ("base", "rl"):
            upto = [np.zeros(table.num_rows), *(column(table, f"mass_{model}_{k}") for k in OVERLAPS)]
            by_model[model] = np.diff([*upto, np.ones(table.num_rows)], axis=0)  # (6, N)
        by_model["moved"] = by_model["rl"] - by_model["base"]
        for model, values in by_model.items():
            found[f"mass_{model}_{name}"] = _side_by_side(labels, list(values), mask)
    return found


def _pairs() -> list[tuple[int, int]]:
    return list(itertools.pairwise(OVERLAPS))


def responses(table: pa.Table, measure: str) -> dict[str, BinnedTerms]:
    """Accuracy, length (tokens), number of high-JS tokens of a response, and share of responses that have one."""
    starts = np.flatnonzero(column(table, "position") == 0)
    high = np.add.reduceat((column(table, measure) > HIGH).astype(np.int64), starts)
    correct = verdicts(table)[starts]
    known = np.flatnonzero(~np.isnan(correct))
    columns = [correct[known], column(table, "length")[starts], high, high > 0]
    rows = [starts[known], starts, starts, starts]
    return {
        "response": BinnedTerms(
            ["accuracy", "length", "high tokens", "with a high token"],
            np.concatenate([np.asarray(each, dtype=np.float64) for each in columns]),
            np.repeat(np.arange(4), [len(each) for each in rows]),
            np.concatenate(rows),
        )
    }


def _everywhere_and_high(table: pa.Table, measure: str) -> dict[str, np.ndarray | None]:
    return {"all": None, "high": column(table, measure) > HIGH}


MEASURES: tuple[Measure, ...] = (sparsity, means, positions, entropies, mechanics, masses, responses)
