"""Numbers that say how far, where and into what a model's distributions moved, from per-token values."""

from typing import Any

import numpy as np
import pyarrow as pa

from tokenshift.analysis.divergence.summary import divergence_summary
from tokenshift.analysis.divergence.token_statistics import OVERLAPS
from tokenshift.analysis.thresholds import HIGH, IMPROBABLE, JS_BINS
from tokenshift.analysis.token_table.columns import column, js_bins, position_bins

RANKS = (1, 3)


def shift_summary(table: pa.Table) -> dict[str, float]:
    """The probe's numbers for the rows of a per-token table, N > 0; bins and sets without a token are left out.

    Keys: those of `divergence_summary` for JS; `top_p/{p99,frac_near_zero,frac_high}`, of the truncated JS;
    `entropy_{policy,reference}_{bin}` (nats) by JS; `position_00..19`, mean JS (nats) by part of the completion;
    `overlap_{k}`, mean; `rl_top1_rank_{1,3}`, share of tokens whose most probable token under RL is among the base's
    first 1 or 3, `rl_top1_improbable`, share where the base gives it less than 0.01; the last three kinds again over
    high-JS tokens alone as `high/*`; `accuracy` and `length` (tokens), means over responses; `tokens`, `responses`.
    """
    js = column(table, "js")
    found = divergence_summary(js)
    truncated = divergence_summary(column(table, "js_top_p"))
    found |= {f"top_p/{name}": truncated[name] for name in ("p99", "frac_near_zero", "frac_high")}
    bins = js_bins(js)
    for place, name in enumerate(JS_BINS):
        inside = bins == place
        if inside.any():
            found[f"entropy_policy_{name}"] = float(column(table, "entropy_rl")[inside].mean(dtype=np.float64))
            found[f"entropy_reference_{name}"] = float(column(table, "entropy_base")[inside].mean(dtype=np.float64))
    parts = position_bins(table)
    for part in np.unique(parts):
        found[f"position_{part:02d}"] = float(js[parts == part].mean(dtype=np.float64))
    found |= _mechanics(table)
    high = table.filter(pa.array(js > HIGH))
    if high.num_rows:
        found |= {f"high/{name}": value for name, value in _mechanics(high).items()}
    return found | _responses(table)


def _mechanics(table: pa.Table) -> dict[str, float]:
    found = {f"overlap_{k}": float(column(table, f"overlap_{k}").mean(dtype=np.float64)) for k in OVERLAPS}
    rank = column(table, "rl_top1_rank_base")
    found |= {f"rl_top1_rank_{limit}": float((rank <= limit).mean()) for limit in RANKS}
    found["rl_top1_improbable"] = float((column(table, "rl_top1_prob_base") < IMPROBABLE).mean())
    return found


def _responses(table: pa.Table) -> dict[str, float]:
    first = table.filter(pa.array(column(table, "position") == 0))
    found = {
        "length": float(column(first, "length").mean()),
        "tokens": float(table.num_rows),
        "responses": float(first.num_rows),
    }
    judged: Any = first["correct"].drop_null()
    if len(judged):
        found["accuracy"] = float(judged.to_numpy().mean())
    return found


def high_set(table: pa.Table) -> set[tuple[int, int, int]]:
    """Tokens with JS > 0.1 as (problem_id, sample_id, position)."""
    chosen = table.filter(pa.array(column(table, "js") > HIGH))
    columns = (column(chosen, name).tolist() for name in ("problem_id", "sample_id", "position"))
    return set(zip(*columns, strict=True))


def jaccard(first: set[Any], second: set[Any]) -> float | None:
    """Size of the intersection over size of the union; None for two empty sets."""
    union = len(first | second)
    return len(first & second) / union if union else None
