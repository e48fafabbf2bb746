"""Which tokens the shifted ones are, and whether a token's identity says that it is shifted."""

from typing import Any

import numpy as np

from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap, interval
from tokenshift.analysis.thresholds import HIGH, NEAR_ZERO

TOKEN_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of a token's JS over its occurrences; the third is the median."""


def frequent_tokens(
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
        texts: the tokens' texts by id.
        bootstrap: resamples of the problems.
        count: how many tokens are listed of either kind.

    Returns:
        `high` and `near_zero`: lists of tokens, most frequent first, with `token`, `n` (all its occurrences),
        `n_high`, `n_near_zero`, `share_high` (of its own occurrences) with `low` and `high`, and `quantiles` of its
        JS at `TOKEN_QUANTILES`, which `quantiles` repeats. `frequent_mostly_low`: share of the tokens of `high` whose
        median JS is below 0.1, None without such tokens.
    """
    identity: dict[str, Any] = {"quantiles": list(TOKEN_QUANTILES)}
    for name, inside in (("high", js > HIGH), ("near_zero", js < NEAR_ZERO)):
        ids, counts = np.unique(token_ids[inside], return_counts=True)
        frequent = ids[np.argsort(-counts, kind="stable")][:count]
        identity[name] = _rows(frequent, token_ids, js, problems, texts, bootstrap)
    medians = [row["quantiles"][2] for row in identity["high"]]
    identity["frequent_mostly_low"] = float(np.mean([median < HIGH for median in medians])) if medians else None
    return identity


def _rows(
    frequent: np.ndarray,
    token_ids: np.ndarray,
    js: np.ndarray,
    problems: np.ndarray,
    texts: dict[int, str],
    bootstrap: ProblemBootstrap,
) -> list[dict[str, Any]]:
    index = {int(token): number for number, token in enumerate(frequent)}
    occurrences = np.flatnonzero(np.isin(token_ids, frequent))
    bins = np.array([index[int(token)] for token in token_ids[occurrences]], dtype=np.int64)
    shape = (bootstrap.weights.shape[1], len(frequent))
    flat = problems[occurrences] * len(frequent) + bins
    counts = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
    high = np.bincount(flat, js[occurrences] > HIGH, minlength=shape[0] * shape[1]).reshape(shape)
    low, top = interval(bootstrap.ratios(high, counts))
    rows = []
    for number, token in enumerate(frequent):
        token_js = js[occurrences[bins == number]]
        rows.append(
            {
                "token": texts[int(token)],
                "token_id": int(token),
                "n": len(token_js),
                "n_high": int((token_js > HIGH).sum()),
                "n_near_zero": int((token_js < NEAR_ZERO).sum()),
                "share_high": float((token_js > HIGH).mean()),
                "low": float(low[number]),
                "high": float(top[number]),
                "quantiles": [float(value) for value in np.quantile(token_js, TOKEN_QUANTILES)],
            }
        )
    return rows
