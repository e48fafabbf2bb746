"""`row_sums_torch` as one CUDA kernel: reads the logits once, and once more for JS, and makes no matrix of its own.

Needs triton. Shape legend: R rows, V vocabulary.
"""

import math

import torch
import triton
import triton.language as tl

from tokenshift.analysis.divergence.expectations import EXPECTATIONS, RowSums

LOGITS_PER_PROGRAM = 2048
"""Logits of each model that a program holds at a time, a power of two."""

WARPS = 8
"""Warps per program."""

_RESULTS = ("highest_base", "highest_rl", "log_z_base", "log_z_rl", *sorted(EXPECTATIONS))
_HIGHEST_BASE: tl.constexpr = tl.constexpr(_RESULTS.index("highest_base"))
_HIGHEST_RL: tl.constexpr = tl.constexpr(_RESULTS.index("highest_rl"))
_LOG_Z_BASE: tl.constexpr = tl.constexpr(_RESULTS.index("log_z_base"))
_LOG_Z_RL: tl.constexpr = tl.constexpr(_RESULTS.index("log_z_rl"))
_ENTROPY_BASE: tl.constexpr = tl.constexpr(_RESULTS.index("entropy_base"))
_ENTROPY_RL: tl.constexpr = tl.constexpr(_RESULTS.index("entropy_rl"))
_FORWARD_KL: tl.constexpr = tl.constexpr(_RESULTS.index("forward_kl"))
_REVERSE_KL: tl.constexpr = tl.constexpr(_RESULTS.index("reverse_kl"))
_JS: tl.constexpr = tl.constexpr(_RESULTS.index("js"))

_LN_2: tl.constexpr = tl.constexpr(math.log(2))
_LOWEST: tl.constexpr = tl.constexpr(-200.0)  # exp of it is 0 in float32
_TINY: tl.constexpr = tl.constexpr(torch.finfo(torch.float32).tiny)


def row_sums_triton(
    base: torch.Tensor, rl: torch.Tensor, wanted: frozenset[str], *, block: int = LOGITS_PER_PROGRAM
) -> RowSums:
    """Sums over rows of logits `(R, V)`, which are left as they are.

    As `row_sums_torch`, but a token of probability zero contributes zero to every expectation under that model: a KL
    is inf only where the other model lacks a token that this one has. A row with NaN, with +inf or of -inf alone
    gives NaN.

    Args:
        base, rl: the two models' logits, V >= 1, float32 or narrower, on one device.
        wanted: names; those outside `EXPECTATIONS` are not looked at.
        block: logits of each model held at a time, a power of two.

    Raises:
        ValueError: for logits that are not two matrices of one shape with V >= 1.
    """
    if base.ndim != 2 or base.shape != rl.shape or base.shape[1] == 0:
        raise ValueError(f"logits of shapes {tuple(base.shape)} and {tuple(rl.shape)}: both must be (R, V), V >= 1.")
    base, rl = (logits if logits.stride(1) == 1 else logits.contiguous() for logits in (base, rl))
    rows, size = base.shape
    results = torch.empty(len(_RESULTS), rows, dtype=torch.float32, device=base.device)
    if rows:
        with torch.cuda.device_of(base):
            _row_sums_kernel[(rows,)](
                base,
                rl,
                results,
                base.stride(0),
                rl.stride(0),
                rows,
                size,
                FORWARD_KL="forward_kl" in wanted,
                REVERSE_KL="reverse_kl" in wanted,
                JS="js" in wanted,
                BLOCK=block,
                num_warps=WARPS,
                enable_fp_fusion=True,
            )
    named = dict(zip(_RESULTS, results, strict=True))
    return RowSums(
        named["highest_base"],
        named["highest_rl"],
        named["log_z_base"],
        named["log_z_rl"],
        {name: named[name] for name in EXPECTATIONS & wanted},
    )


@triton.jit
def _load(row_ptr: tl.tensor, start: tl.tensor, size: tl.tensor, BLOCK: tl.constexpr) -> tl.tensor:
    """The row's logits from `start` on, float32 `(BLOCK,)`, -inf past the row's end."""
    column = start + tl.arange(0, BLOCK)
    return tl.load(row_ptr + column, mask=column < size, other=float("-inf")).to(tl.float32)


@triton.jit
def _reference(highest: tl.tensor) -> tl.tensor:
    """The logit that others are taken relative to: the largest so far, 0 while all are -inf (-inf - -inf is NaN)."""
    return tl.where(highest == float("-inf"), 0.0, highest)


@triton.jit
def _shift(highest: tl.tensor, new: tl.tensor) -> tl.tensor:
    """The change of all finite x so far; there are none while all logits are -inf."""
    return tl.where(highest == float("-inf"), 0.0, highest - new)


@triton.jit
def _times(probability: tl.tensor, value: tl.tensor) -> tl.tensor:
    """probability * value, where 0 * inf is 0."""
    return tl.where(probability == 0.0, 0.0, probability * value)


@triton.jit
def _not_negative(value: tl.tensor) -> tl.tensor:
    """`value` or 0, the larger; NaN stays, which a maximum would drop."""
    return tl.where(value < 0.0, 0.0, value)


@triton.jit
def _row_sums_kernel(
    base_ptr: tl.tensor,
    rl_ptr: tl.tensor,
    results_ptr: tl.tensor,
    base_stride: tl.tensor,
    rl_stride: tl.tensor,
    rows: tl.tensor,
    size: tl.tensor,
    FORWARD_KL: tl.constexpr,
    REVERSE_KL: tl.constexpr,
    JS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """One row: logits at `base_ptr` and `rl_ptr`, results `(len(_RESULTS), R)` at `results_ptr`."""
    row = tl.program_id(0).to(tl.int64)  # R * V can exceed 2^31
    base_ptr += row * base_stride
    rl_ptr += row * rl_stride

    # x = logit - largest logit so far <= 0 and e = exp(x). When the largest grows, x so far shift and e so far scale;
    # x stay <= 0, so that nothing cancels. Sums are kept for each place in a block, which is more accurate than one.
    highest_base = float("-inf")
    highest_rl = float("-inf")
    z_base = tl.zeros((BLOCK,), tl.float32)  # sum of e
    z_rl = tl.zeros((BLOCK,), tl.float32)
    own_base = tl.zeros((BLOCK,), tl.float32)  # sum of e_base * x_base
    own_rl = tl.zeros((BLOCK,), tl.float32)
    cross_base = tl.zeros((BLOCK,), tl.float32)  # sum of e_base * x_rl
    cross_rl = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, size, BLOCK):
        base = _load(base_ptr, start, size, BLOCK)
        rl = _load(rl_ptr, start, size, BLOCK)
        new_base = tl.maximum(highest_base, tl.max(base, 0))
        new_rl = tl.maximum(highest_rl, tl.max(rl, 0))
        if (new_base > highest_base) | (new_rl > highest_rl):
            shift_base = _shift(highest_base, new_base)
            shift_rl = _shift(highest_rl, new_rl)
            scale_base = tl.exp(highest_base - _reference(new_base))
            scale_rl = tl.exp(highest_rl - _reference(new_rl))
            own_base = _times(scale_base, own_base + shift_base * z_base)
            own_rl = _times(scale_rl, own_rl + shift_rl * z_rl)
            if FORWARD_KL:
                cross_base = _times(scale_base, cross_base + shift_rl * z_base)
            if REVERSE_KL:
                cross_rl = _times(scale_rl, cross_rl + shift_base * z_rl)
            z_base *= scale_base  # not _times: NaN must stay
            z_rl *= scale_rl
            highest_base = new_base
            highest_rl = new_rl
        x_base = base - _reference(highest_base)
        x_rl = rl - _reference(highest_rl)
        e_base = tl.exp(x_base)
        e_rl = tl.exp(x_rl)
        z_base += e_base
        z_rl += e_rl
        own_base += e_base * tl.maximum(x_base, _LOWEST)
        own_rl += e_rl * tl.maximum(x_rl, _LOWEST)
        if FORWARD_KL:
            cross_base += _times(e_base, x_rl)
        if REVERSE_KL:
            cross_rl += _times(e_rl, x_base)

    sum_base = tl.sum(z_base, 0)
    sum_rl = tl.sum(z_rl, 0)
    # the largest logit contributes 1: only a row of -inf alone has sum 0
    sum_base = tl.where(sum_base == 0.0, float("nan"), sum_base)
    sum_rl = tl.where(sum_rl == 0.0, float("nan"), sum_rl)
    log_z_base = tl.log(sum_base)
    log_z_rl = tl.log(sum_rl)
    mean_base = tl.sum(own_base, 0) / sum_base - log_z_base  # E[log p] under itself
    mean_rl = tl.sum(own_rl, 0) / sum_rl - log_z_rl

    results_ptr += row
    stride = tl.cast(rows, tl.int64)
    # a maximum passes NaN over, the sums do not
    tl.store(results_ptr + _HIGHEST_BASE * stride, tl.where(sum_base == sum_base, highest_base, float("nan")))
    tl.store(results_ptr + _HIGHEST_RL * stride, tl.where(sum_rl == sum_rl, highest_rl, float("nan")))
    tl.store(results_ptr + _LOG_Z_BASE * stride, log_z_base)
    tl.store(results_ptr + _LOG_Z_RL * stride, log_z_rl)
    tl.store(results_ptr + _ENTROPY_BASE * stride, _not_negative(-mean_base))
    tl.store(results_ptr + _ENTROPY_RL * stride, _not_negative(-mean_rl))
    if FORWARD_KL:
        other_base = tl.sum(cross_base, 0) / sum_base - log_z_rl
        tl.store(results_ptr + _FORWARD_KL * stride, _not_negative(mean_base - other_base))
    if REVERSE_KL:
        other_rl = tl.sum(cross_rl, 0) / sum_rl - log_z_base
        tl.store(results_ptr + _REVERSE_KL * stride, _not_negative(mean_rl - other_rl))

    if JS:
        # JS = (E_p log p + E_q log q) / 2 - sum m log m, where m = (p + q) / 2
        half_base = 0.5 / sum_base
        half_rl = 0.5 / sum_rl
        middle = tl.zeros((BLOCK,), tl.float32)  # sum of m log m
        for start in range(0, size, BLOCK):
            e_base = tl.exp(_load(base_ptr, start, size, BLOCK) - highest_base)
            e_rl = tl.exp(_load(rl_ptr, start, size, BLOCK) - highest_rl)
            m = e_base * half_base + e_rl * half_rl
            middle += m * tl.log(m + _TINY)
        js = _not_negative(0.5 * (mean_base + mean_rl) - tl.sum(middle, 0))
        tl.store(results_ptr + _JS * stride, tl.where(js > _LN_2, _LN_2, js))
