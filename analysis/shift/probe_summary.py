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
from tokenshift.analysis.shift.exact_zeros import EXACT_ZERO, exact_zero_terms, largest_at_exact_zero
from tokenshift.analysis.thresholds import IMPROBABLE
from tokenshift.analysis.token_table.columns import column
from tokenshift.analysis.token_table.measure import FULL_JS, TRUNCATED_JS

PROBE_RANKS = (1, 3)
"""Ranks under the base within which the probe counts RL's most probable token."""


TOP_P_PREFIX = "top_p/"
"""Prefix of the probe's numbers of the truncated JS."""


def shift_summary(table: pa.Table) -> dict[str, float]:
    """The probe's numbers for the rows of a per-token table, N > 0; bins and sets without a token are left out.

    Args:
        table: whole responses, the rows of each together and in order.

    Returns:
        By name, first those of the truncated JS as `top_p/NAME`, the publication's measure, then the same of the full
        JS as `NAME`: those of `divergence_summary`; `entropy_{policy,reference}_{bin}` (nats) by JS;
        `position_00..19`, mean JS (nats) by part of the response; `high/overlap_{k}`, `high/rl_top1_rank_{1,3}` and
        `high/rl_top1_improbable`, means over high-JS tokens. Among the first also `top_p/frac_exact_zero`, share of
        tokens whose truncated JS is 0, and `top_p/full_js_at_exact_zero_{mean,max}` (nats). Then `overlap_{k}`, mean;
        `rl_top1_rank_{1,3}`, share of tokens whose most probable token under RL is among the base's first 1 or 3,
        `rl_top1_improbable`, share where the base gives it less than 0.01; `accuracy` and `length` (tokens), means
        over responses; `tokens`, `responses`.
    """
    truncated = _by_measure(table, TRUNCATED_JS) | _exact_zeros(table)
    numbers = {TOP_P_PREFIX + name: value for name, value in truncated.items()}
    numbers |= _by_measure(table, FULL_JS)
    numbers |= _mechanics(mechanics_terms(table, FULL_JS), "all")
    responses = _means(response_terms(table, FULL_JS)["response"])
    numbers |= {
        "length": responses["length"],
        "tokens": float(table.num_rows),
        "responses": float((column(table, "position") == 0).sum()),
    }
    return numbers | {name: value for name, value in responses.items() if name == "accuracy"}


def _by_measure(table: pa.Table, measure: str) -> dict[str, float]:
    """The numbers that depend on which JS is taken."""
    numbers = divergence_summary(column(table, measure))
    entropies, positions = entropy_terms(table, measure), relative_position_terms(table, measure)
    numbers |= entropy_and_position_means(
        binned_sums(entropies["entropy_rl"]),
        binned_sums(entropies["entropy_base"]),
        binned_sums(positions["position_relative"]),
        separator="_",
    )
    high = _mechanics(mechanics_terms(table, measure), "high")
    return numbers | {f"high/{name}": value for name, value in high.items()}


def _exact_zeros(table: pa.Table) -> dict[str, float]:
    """Share of exact zeros of the truncated JS, and mean and largest full JS (nats) among them."""
    terms = exact_zero_terms(table, TRUNCATED_JS)
    numbers = {"frac_exact_zero": _means(terms["exact_zero"])[EXACT_ZERO]}
    largest = largest_at_exact_zero(table)
    if largest is not None:
        numbers["full_js_at_exact_zero_mean"] = _means(terms["at_exact_zero"])["js"]
        numbers["full_js_at_exact_zero_max"] = largest
    return numbers


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
