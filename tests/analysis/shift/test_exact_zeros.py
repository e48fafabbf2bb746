"""Exact zeros of the truncated JS against the nuclei of the reference."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from tokenshift.analysis.divergence.from_logits import js_divergence, log_probabilities, top_p_support
from tokenshift.analysis.shift.exact_zeros import exact_zero_terms, largest_at_exact_zero


def scored(base: torch.Tensor, rl: torch.Tensor, top_p: float) -> pa.Table:
    """The columns that matter, float32 as in a table, of logits `(N, V)` in float64."""
    p, q = log_probabilities(base).exp(), log_probabilities(rl).exp()
    top1 = p.argmax(-1)
    columns = {
        "js": js_divergence(base, rl).float(),
        "js_top_p": js_divergence(base, rl, top_p=top_p).float(),
        "top1_base": top1,
        "top1_rl": q.argmax(-1),
        "mass_base_1": p.amax(-1).float(),
        "mass_rl_1": q.gather(-1, top1[:, None])[:, 0].float(),
    }
    return pa.table({name: values.numpy() for name, values in columns.items()})


@pytest.mark.parametrize("top_p", [0.3, 0.7, 0.95])
def test_one_token_is_both_nuclei(top_p: float) -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4000, 6, generator=generator, dtype=torch.float64) * 3
    rl = base + torch.randn(4000, 6, generator=generator, dtype=torch.float64)
    rl[:500] = base[:500]  # the same weights: JS is 0 however large the nuclei are
    nuclei = [top_p_support(log_probabilities(logits), top_p) for logits in (base, rl)]
    one = ((nuclei[0] == nuclei[1]).all(-1) & (nuclei[0].sum(-1) == 1)).numpy()
    table = scored(base, rl, top_p)
    zero = table["js_top_p"].to_numpy() == 0
    terms = exact_zero_terms(table, "js_top_p", top_p=top_p)
    shares = dict(zip(terms["exact_zero"].labels, terms["exact_zero"].values.reshape(3, -1), strict=True))
    np.testing.assert_array_equal(shares["exact zero"], zero)
    np.testing.assert_array_equal(shares["one token"], one)
    np.testing.assert_array_equal(shares["other"], zero & ~one)
    assert 0 < one.sum() < len(one)
    assert 0 < (zero & ~one).sum() <= 500
    assert largest_at_exact_zero(table) == table["js"].to_numpy()[zero].max() > 0.001


def test_mass_on_the_edge_and_whole_distributions() -> None:
    """A token of exactly top-p is a nucleus alone, whichever way float32 rounds; at top-p 1 nothing is truncated."""
    table = pa.table(
        {
            "js": np.array([0.1, 0.0], np.float32),
            "js_top_p": np.array([0.0, 0.0], np.float32),
            "top1_base": [3, 3],
            "top1_rl": [3, 3],
            "mass_base_1": np.array([0.7, 1.0], np.float32),
            "mass_rl_1": np.array([0.9, 1.0], np.float32),
        }
    )
    assert exact_zero_terms(table, "js", top_p=0.7)["exact_zero"].values.tolist() == [1, 1, 1, 1, 0, 0]
    assert exact_zero_terms(table, "js", top_p=1.0)["exact_zero"].values.tolist() == [1, 1, 0, 0, 1, 1]
    assert exact_zero_terms(table, "js")["exact_zero"].labels == ["exact zero"]
    assert exact_zero_terms(table.drop_columns("js_top_p"), "js") == {}
    assert largest_at_exact_zero(table.slice(0, 0)) is None
