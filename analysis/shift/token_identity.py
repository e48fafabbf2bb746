"""Which tokens the shifted ones are, and whether a token's identity says that it is shifted."""

from typing import Any

import numpy as np

from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap, interval
from tokenshift.analysis.thresholds import HIGH, NEAR_ZERO

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def token_identity(
    token_ids: np.ndarray,
    js: np.ndarray,
    problems: np.ndarray,
    texts: dict[int, str],
    bootstrap: ProblemBootstrap,
    count: int = 20,
) -> dict[str, Any]:
    """The tokens most frequent among high and among near-zero positions, each with its whole JS distribution.

    Args:
        token_ids, js, problems: `(N,)` each: id, divergence in nats, and which of the bootstrap's problems.
        texts: of the ids.
        bootstrap: resamples of the problems.
        count: tokens of either kind.

    Returns:
        `high` and `near_zero`: lists of tokens, most frequent first, with `token`, `n` (all its occurrences),
        `n_high`, `n_near_zero`, `share_high` (of its own occurrences) with `low` and `high`, and `quantiles` of its
        JS at `QUANTILES`. `frequent_mostly_low`: share of `high`'s tokens whose median JS is below 0.1.
    """
    found: dict[str, Any] = {"quantiles": list(QUANTILES)}
    for name, inside in (("high", js > HIGH), ("near_zero", js < NEAR_ZERO)):
        ids, counts = np.unique(token_ids[inside], return_counts=True)
        chosen = ids[np.argsort(-counts, kind="stable")][:count]
        found[name] = _rows(chosen, token_ids, js, problems, texts, bootstrap)
    medians = [row["quantiles"][2] for row in found["high"]]
    found["frequent_mostly_low"] = float(np.mean([median < HIGH for median in medians])) if medians else None
    return found


def _rows(
    chosen: np.ndarray,
    token_ids: np.ndarray,
    js: np.ndarray,
    problems: np.ndarray,
    texts: dict[int, str],
    bootstrap: ProblemBootstrap,
) -> list[dict[str, Any]]:
    place = {int(token): number for number, token in enumerate(chosen)}
    mine = np.flatnonzero(np.isin(token_ids, chosen))
    bins = np.array([place[int(token)] for token in token_ids[mine]], dtype=np.int64)
    shape = (bootstrap.weights.shape[1], len(chosen))
    flat = problems[mine] * len(chosen) + bins
    counts = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
    high = np.bincount(flat, js[mine] > HIGH, minlength=shape[0] * shape[1]).reshape(shape)
    low, top = interval(bootstrap.ratios(high, counts))
    rows = []
    for number, token in enumerate(chosen):
        own = js[mine[bins == number]]
        rows.append(
            {
                "token": texts[int(token)],
                "token_id": int(token),
                "n": len(own),
                "n_high": int((own > HIGH).sum()),
                "n_near_zero": int((own < NEAR_ZERO).sum()),
                "share_high": float((own > HIGH).mean()),
                "low": float(low[number]),
                "high": float(top[number]),
                "quantiles": [float(value) for value in np.quantile(own, QUANTILES)],
            }
        )
    return rows
