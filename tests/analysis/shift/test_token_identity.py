"""The most frequent tokens against a loop, with ties, one token, and none that is high."""

from collections import Counter

import numpy as np
import pytest

from tokenshift.analysis.shift.token_identity import TOKEN_QUANTILES, frequent_tokens
from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap

TEXTS = {token: f"t{token}" for token in range(50)}


@pytest.mark.parametrize(("tokens", "vocabulary"), [(1, 1), (30, 3), (2000, 50)])
def test_against_a_loop(tokens: int, vocabulary: int) -> None:
    rng = np.random.default_rng(tokens)
    ids = rng.integers(0, vocabulary, tokens)
    js = np.where(rng.random(tokens) < 0.5, rng.uniform(0.1001, 0.69, tokens), rng.uniform(0, 2e-3, tokens))
    problems = rng.integers(0, 3, tokens)
    bootstrap = ProblemBootstrap(3, 40)
    identity = frequent_tokens(ids, js, problems, TEXTS, bootstrap, count=5)
    for name, inside in (("high", js > 0.1), ("near_zero", js < 1e-3)):
        counts = Counter(ids[inside].tolist())
        chosen = sorted(counts, key=lambda token: (-counts[token], token))[:5]
        assert [row["token_id"] for row in identity[name]] == chosen
        for row in identity[name]:
            own = js[ids == row["token_id"]]
            assert row["token"] == f"t{row['token_id']}"
            assert (row["n"], row["n_high"], row["n_near_zero"]) == (len(own), (own > 0.1).sum(), (own < 1e-3).sum())
            assert row["share_high"] == pytest.approx((own > 0.1).mean())
            assert row["quantiles"] == pytest.approx(np.quantile(own, TOKEN_QUANTILES))
            assert row["low"] <= row["share_high"] + 1e-12
            assert row["high"] >= row["share_high"] - 1e-12 or tokens == 1 or vocabulary == 50
    medians = [np.median(js[ids == row["token_id"]]) for row in identity["high"]]
    expected = np.mean([median < 0.1 for median in medians]) if medians else None
    assert identity["frequent_mostly_low"] == expected


def test_no_high_token() -> None:
    identity = frequent_tokens(
        np.array([3, 3]), np.array([0.0, 0.05]), np.zeros(2, int), TEXTS, ProblemBootstrap(1, 5)
    )
    assert identity["high"] == []
    assert identity["frequent_mostly_low"] is None
    assert [row["n"] for row in identity["near_zero"]] == [2]
