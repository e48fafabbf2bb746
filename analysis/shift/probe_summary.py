"""The probe's numbers: how far, where and into what a model's distributions moved, from the rows of one table."""

import pyarrow as pa

from tokenshift.analysis.divergence.summary import divergence_summary
from tokenshift.analysis.divergence.token_statistics import OVERLAPS
from tokenshift.analysis.shift.binned_means import (
    BinnedTerms,
    binned_sums,
    entropy_and_position_means,
    entropy_terms,
    filled_means,
    mechanics_terms,
    relative_position_terms,
    response_terms,
)
from tokenshift.analysis.thresholds import IMPROBABLE
from tokenshift.analysis.token_table.columns import column

PROBE_RANKS = (1, 3)
"""Ranks under the base within which the probe counts RL's most probable token."""


def shift_summary(table: pa.Table) -> dict[str, float]:
    """The probe's numbers for the rows of a per-token table, N > 0; bins and sets without a token are left out.

    Args:
        table: whole responses, the rows of each together and in order.

    Returns:
        By name: those of `divergence_summary` for JS; `top_p/{p99,frac_near_zero,frac_high}`, of the truncated JS;
        `entropy_{policy,reference}_{bin}` (nats) by JS; `position_00..19`, mean JS (nats) by part of the response;
        `overlap_{k}`, mean; `rl_top1_rank_{1,3}`, share of tokens whose most probable token under RL is among the
        base's first 1 or 3, `rl_top1_improbable`, share where the base gives it less than 0.01; the last three kinds
        again over high-JS tokens alone as `high/*`; `accuracy` and `length` (tokens), means over responses; `tokens`,
        `responses`.
    """
    numbers = divergence_summary(column(table, "js"))
    truncated = divergence_summary(column(table, "js_top_p"))
    numbers |= {f"top_p/{name}": truncated[name] for name in ("p99", "frac_near_zero", "frac_high")}
    entropies, positions = entropy_terms(table, "js"), relative_position_terms(table, "js")
    numbers |= entropy_and_position_means(
        binned_sums(entropies["entropy_rl"]),
        binned_sums(entropies["entropy_base"]),
        binned_sums(positions["position_relative"]),
        separator="_",
    )
    mechanics = mechanics_terms(table, "js")
    numbers |= _mechanics(mechanics, "all")
    numbers |= {f"high/{name}": value for name, value in _mechanics(mechanics, "high").items()}
    responses = _means(response_terms(table, "js")["response"])
    numbers |= {
        "length": responses["length"],
        "tokens": float(table.num_rows),
        "responses": float((column(table, "position") == 0).sum()),
    }
    return numbers | {name: value for name, value in responses.items() if name == "accuracy"}


def _means(terms: BinnedTerms) -> dict[str, float]:
    return filled_means(terms.labels, *binned_sums(terms))


def _mechanics(terms: dict[str, BinnedTerms], tokens: str) -> dict[str, float]:
    """Overlaps, ranks and improbable tokens over `all` or over `high` tokens; nothing where there is none."""
    overlaps, ranks, improbable = (_means(terms[f"{name}_{tokens}"]) for name in ("overlap", "rank", "improbable"))
    if not overlaps:
        return {}
    return {
        **{f"overlap_{k}": overlaps[str(k)] for k in OVERLAPS},
        **{f"rl_top1_rank_{limit}": ranks[f"<= {limit}"] for limit in PROBE_RANKS},
        "rl_top1_improbable": improbable[f"< {IMPROBABLE:g}"],
    }
