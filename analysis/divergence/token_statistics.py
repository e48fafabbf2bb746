"""Statistics of two models' next-token distributions from their last hidden states, without `(B, T, V)` logits.

One pass over chunks of tokens: two projections, then strips of a few rows that stay in cache. The readable reference,
against which all of it is tested, is `tokenshift.analysis.divergence.from_logits`.

Shape legend: N tokens, n tokens of a chunk, H hidden size, V vocabulary.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch

from tokenshift.analysis.divergence.expectations import EXPECTATIONS
from tokenshift.analysis.divergence.from_logits import (
    check_sampling,
    js_divergence,
    kl_divergence,
    log_probabilities,
)
from tokenshift.analysis.divergence.lm_head import LMHead
from tokenshift.analysis.divergence.projection import Projection, exact_logits
from tokenshift.analysis.divergence.row_sums import row_sums
from tokenshift.analysis.divergence.top_k import block_maxima, ranks, top_k
from tokenshift.analysis.divergence.top_p import DEPTH, NextTokens, truncated_divergences, wide_divergences

OVERLAPS = (1, 2, 3, 5, 10)
MASSES = ("mass_base", "mass_rl")
TRUNCATED = {"js_top_p": "js", "forward_kl_top_p": "forward_kl", "reverse_kl_top_p": "reverse_kl"}
"""Divergences of truncated distributions, and what they are at top_p = 1."""

STATISTICS = (
    "js",
    "forward_kl",
    "reverse_kl",
    "entropy_base",
    "entropy_rl",
    "logp_base",
    "logp_rl",
    "rank_base",
    "rank_rl",
    "top1_base",
    "top1_rl",
    "rl_top1_rank_base",
    "rl_top1_prob_base",
    *(f"overlap_{k}" for k in OVERLAPS),
    *(f"{mass}_{k}" for mass in MASSES for k in OVERLAPS),
    *TRUNCATED,
)
"""The name of every output; `overlap_{k}` and `mass_{model}_{k}` may be asked for with any k >= 1."""

FROM_PROBABILITIES = EXPECTATIONS | {"logp_base", "logp_rl", "rl_top1_prob_base"}

RANKS = frozenset({"rank_base", "rank_rl", "rl_top1_rank_base"})
FROM_TOPS = RANKS | {"top1_base", "top1_rl", "rl_top1_prob_base"}


@dataclass(frozen=True)
class Limits:
    """Sizes that suit a kind of device.

    Attributes:
        memory: bytes of a chunk where the caller sets no budget.
        smallest_chunk: tokens; fewer leave BLAS slow, so that a large vocabulary takes more than `memory`. The logits
            of 256 tokens are 1/32 of those of 8,192.
        multiple: of a chunk's tokens; other numbers leave BLAS slower, on CPU by a third.
        strip: bytes of a strip of one model's logits; on CPU a few of these fit its caches.
    """

    memory: int
    smallest_chunk: int
    multiple: int
    strip: int


CPU = Limits(memory=19 * 2**20, smallest_chunk=256, multiple=8, strip=3 * 2**18)
CUDA = Limits(memory=1024 * 2**20, smallest_chunk=128, multiple=128, strip=64 * 2**20)

NOT_FINITE = "The statistics are NaN for some tokens: the hidden states or a head hold NaN or infinities."

EXACT_ROWS, EXACT_SHARE = 16, 4
"""Tokens whose logits are made anew in float64 at a time: at least so many, and the chunk's divided by this."""

UNSURE = "unsure"
"""Key of a chunk's tokens whose top-p set float32 logits leave open."""

COPIES, COPIES_TRUNCATING = 3, 6
"""Matrices of a strip's size that are alive at once, without and with truncated divergences."""


def token_statistics(
    hidden_base: torch.Tensor,
    hidden_rl: torch.Tensor,
    head_base: LMHead,
    head_rl: LMHead,
    token_ids: torch.Tensor,
    *,
    outputs: Collection[str] = ("js",),
    temperature: float = 1.0,
    top_p: float = 1.0,
    memory_budget: int | None = None,
) -> dict[str, torch.Tensor]:
    """Statistics of each token's two distributions; only those named are computed.

    Args:
        hidden_base, hidden_rl: last hidden states `(N, H)`, after the final norm, float32, bfloat16 or float16; H may
            differ.
        head_base, head_rl: the projections, of equal vocabulary size.
        token_ids: `(N,)` integers, the tokens that followed.
        outputs: names of `STATISTICS`:
            `js`, `forward_kl` = KL(base‖RL), `reverse_kl` = KL(RL‖base), of the whole distributions, nats;
            `js_top_p`, `forward_kl_top_p`, `reverse_kl_top_p`, of those truncated to `top_p` and renormalised (a KL
            is inf where the supports differ so);
            `entropy_*`, nats; `logp_*`, nats, and `rank_*`, 1 for the most probable, of the token;
            `top1_*`, the most probable token's id; `rl_top1_rank_base`, `rl_top1_prob_base`, rank and probability
            under the base of RL's most probable token; `overlap_{k}`, share of the k most probable tokens that are
            the same; `mass_base_{k}`, `mass_rl_{k}`, probability under either model of the base's k most probable
            tokens.
            Of equally probable tokens the lower id comes first.
        temperature: divides all logits, as in TRL.
        top_p: of the truncated divergences alone.
        memory_budget: bytes that the logits of a chunk and what is made of them may take, beside the results; by
            default 19 MiB on CPU and 1 GiB on CUDA (more where 256 or 128 tokens need it). At least a token is taken.

    Returns:
        A float32 tensor `(N,)` per name; int64 for ranks and ids. Products are summed in float32, which leaves JS
        within 1e-5 nats of exact arithmetic, and a KL within 1e-4 of itself above about 0.01 nats, 1e-6 nats below.

    Raises:
        ValueError: for shapes that do not fit, ids outside the vocabulary, NaN, unknown names, or numbers out of
        range.
    """
    numbered = _check_names(outputs)
    check_sampling(temperature, top_p)
    _check_shapes(hidden_base, hidden_rl, head_base, head_rl, token_ids)
    token_ids = token_ids.long()
    size, vocab = len(token_ids), head_base.vocab_size
    results = {name: _empty(name, size, token_ids.device) for name in outputs}
    if not size or not outputs:
        return results
    device = token_ids.device
    needed = frozenset(outputs)
    truncates = bool(needed & TRUNCATED.keys()) and top_p < 1
    strip, chunk = _sizes(device, vocab, memory_budget, COPIES_TRUNCATING if truncates else COPIES)
    chunk = min(chunk, size)
    project_base = Projection(head_base, temperature, chunk, device)
    project_rl = Projection(head_rl, temperature, chunk, device)
    unsure: list[torch.Tensor] = []
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        for start in range(0, size, chunk):
            rows = slice(start, start + chunk)
            base, rl = project_base(hidden_base[rows]), project_rl(hidden_rl[rows])  # (chunk, V) float32
            chunk_statistics = _chunk_statistics(base, rl, token_ids[rows], needed, numbered, top_p, strip)
            for name in outputs:
                results[name][rows] = chunk_statistics[name]
            if UNSURE in chunk_statistics:
                unsure.append(start + chunk_statistics[UNSURE])
        del project_base, project_rl, base, rl  # their memory is taken anew
        for rows in torch.cat(unsure).split(max(EXACT_ROWS, chunk // EXACT_SHARE)) if unsure else ():
            logits_base = exact_logits(head_base, hidden_base[rows], temperature)
            logits_rl = exact_logits(head_rl, hidden_rl[rows], temperature)
            exact = _exact_truncated(logits_base, logits_rl, top_p, max(1, strip // 2))
            for name in needed & TRUNCATED.keys():
                results[name][rows] = exact[name]
    if any(value.isnan().any() for value in results.values() if value.is_floating_point()):
        raise ValueError(NOT_FINITE)
    return results


def statistics_of_logits(
    base: torch.Tensor,
    rl: torch.Tensor,
    token_ids: torch.Tensor,
    *,
    outputs: Collection[str] = ("js",),
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> dict[str, torch.Tensor]:
    """The statistics of `token_statistics`, from logits that are there already.

    Args:
        base, rl: logits `(n, V)`, which stay as they are.
        token_ids: `(n,)` integers, the tokens that followed.
        outputs, temperature, top_p: as of `token_statistics`.

    Raises:
        ValueError: for shapes that do not fit, NaN, unknown names, or numbers out of range.
    """
    numbered = _check_names(outputs)
    check_sampling(temperature, top_p)
    if base.shape != rl.shape or base.shape[:1] != token_ids.shape:
        raise ValueError(f"base {tuple(base.shape)}, rl {tuple(rl.shape)} and token_ids {tuple(token_ids.shape)}.")
    if not len(token_ids) or not outputs:
        return {name: _empty(name, len(token_ids), token_ids.device) for name in outputs}
    truncates = bool(set(outputs) & TRUNCATED.keys()) and top_p < 1
    strip, _ = _sizes(base.device, base.shape[-1], None, COPIES_TRUNCATING if truncates else COPIES)
    with torch.no_grad(), torch.autocast(base.device.type, enabled=False):
        p, q = (_tempered(logits, temperature) for logits in (base, rl))
        statistics = _chunk_statistics(p, q, token_ids.long(), frozenset(outputs), numbered, top_p, strip)
        unsure = statistics.pop(UNSURE, None)
        if unsure is not None:
            p, q = (_tempered(logits[unsure].double(), temperature) for logits in (base, rl))
            for name, values in _exact_truncated(p, q, top_p, max(1, strip // 2)).items():
                if name in outputs:
                    statistics[name][unsure] = values
    results = {name: statistics[name].to(_empty(name, 0, base.device).dtype) for name in outputs}
    if any(value.isnan().any() for value in results.values() if value.is_floating_point()):
        raise ValueError(NOT_FINITE)
    return results


def _tempered(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """A contiguous copy in float32, or float64 where they are, divided by the temperature as `Projection` does."""
    copy = logits.to(logits.dtype if logits.dtype == torch.float64 else torch.float32, copy=True).contiguous()
    if temperature == 1:
        return copy
    # the largest is taken off first: an offset that all logits share would cost the quotients their digits
    return copy.sub_(copy.amax(dim=-1, keepdim=True)).div_(temperature)


def workspace_bytes(device: torch.device, vocab: int, tokens: int, *, truncates: bool) -> int:
    """Bytes that `token_statistics` takes beside its inputs and results where no memory budget is set.

    Args:
        device: where the states are.
        vocab: tokens of the vocabulary.
        tokens: states.
        truncates: whether divergences of truncated distributions are among the outputs.
    """
    copies = COPIES_TRUNCATING if truncates else COPIES
    strip, chunk = _sizes(device, vocab, None, copies)
    return 4 * vocab * (2 * min(chunk, tokens) + copies * min(strip, tokens))


def _chunk_statistics(
    base: torch.Tensor,
    rl: torch.Tensor,
    ids: torch.Tensor,
    outputs: frozenset[str],
    numbered: dict[str, int],
    top_p: float,
    strip: int,
) -> dict[str, torch.Tensor]:
    """The outputs of n tokens from their logits `(n, V)`, which may be overwritten.

    What needs matrices of V columns takes `strip` rows at a time, which stay in cache; the rest takes all n at once.
    """
    statistics: dict[str, torch.Tensor] = {}
    truncates = bool(outputs & TRUNCATED.keys()) and top_p < 1
    masses = {name: k for name, k in numbered.items() if not name.startswith("overlap")}
    if numbered or truncates or outputs & FROM_TOPS:
        depth = max(DEPTH if truncates or outputs & RANKS else 1, *numbered.values(), 1)
        maxima_base, maxima_rl = block_maxima(base), block_maxima(rl)  # (n, V / block)
        if maxima_base.isnan().any() or maxima_rl.isnan().any():
            raise ValueError(NOT_FINITE)
        top_base, top_rl = top_k(base, depth, maxima_base), top_k(rl, depth, maxima_rl)
        statistics |= _top_statistics(base, rl, ids, top_base, top_rl, outputs, numbered, strip)
    logits_base, logits_rl = (logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1) for logits in (base, rl))  # (n,)
    if "rl_top1_prob_base" in outputs:
        logits_top1 = base.gather(-1, top_rl[1][:, :1]).squeeze(-1)
    if masses:
        at_tops = rl.gather(-1, top_base[1])  # (n, depth)
    if not (truncates or masses or outputs & FROM_PROBABILITIES or outputs & TRUNCATED.keys()):
        return statistics

    wanted = outputs if top_p < 1 else outputs | {TRUNCATED[name] for name in outputs & TRUNCATED.keys()}
    sums = row_sums(base, rl, wanted, strip=strip, overwrite=not truncates)
    statistics |= sums.means
    statistics["logp_base"] = logits_base - sums.highest_base - sums.log_z_base
    statistics["logp_rl"] = logits_rl - sums.highest_rl - sums.log_z_rl
    if "rl_top1_prob_base" in outputs:
        statistics["rl_top1_prob_base"] = (logits_top1 - sums.highest_base - sums.log_z_base).exp()
    if masses:
        cumulative = {
            "mass_base": (top_base[0] - (sums.highest_base + sums.log_z_base).unsqueeze(-1)).exp().cumsum(dim=-1),
            "mass_rl": (at_tops - (sums.highest_rl + sums.log_z_rl).unsqueeze(-1)).exp().cumsum(dim=-1),
        }
        for name, k in masses.items():
            mass = cumulative[name.rsplit("_", 1)[0]]
            statistics[name] = mass[:, min(k, mass.shape[-1]) - 1].clamp(max=1.0)
    if truncates:
        truncated, sure = truncated_divergences(
            NextTokens(base, top_base, sums.highest_base.double() + sums.log_z_base),
            NextTokens(rl, top_rl, sums.highest_rl.double() + sums.log_z_rl),
            top_p,
            strip,
        )
        statistics |= dict(zip(TRUNCATED, truncated, strict=True))
        if not sure.all():
            statistics[UNSURE] = (~sure).nonzero().squeeze(-1)
    else:
        statistics |= {name: statistics[whole] for name, whole in TRUNCATED.items() if whole in statistics}
    return statistics


def _exact_truncated(base: torch.Tensor, rl: torch.Tensor, top_p: float, strip: int) -> dict[str, torch.Tensor]:
    """Truncated divergences `(n,)` of float64 logits `(n, V)`, `strip` rows at a time.

    The few rows in which tokens tie, or a token's mass meets top_p, are left to the reference, which sorts all.
    """
    parts = []
    for p, q in zip(base.split(strip), rl.split(strip), strict=True):
        divergences, sure = wide_divergences(p, q, p.logsumexp(dim=-1), q.logsumexp(dim=-1), top_p)
        for row in (~sure).nonzero().squeeze(-1).tolist():
            logp, logq = (log_probabilities(logits[row], top_p=top_p) for logits in (p, q))
            values = js_divergence(logp, logq), kl_divergence(logp, logq), kl_divergence(logq, logp)
            divergences[:, row] = torch.stack(values)
        parts.append(divergences.float())
    return dict(zip(TRUNCATED, torch.cat(parts, dim=-1), strict=True))


def _top_statistics(
    base: torch.Tensor,
    rl: torch.Tensor,
    ids: torch.Tensor,
    top_base: tuple[torch.Tensor, torch.Tensor],
    top_rl: tuple[torch.Tensor, torch.Tensor],
    outputs: frozenset[str],
    numbered: dict[str, int],
    strip: int,
) -> dict[str, torch.Tensor]:
    """Top-1 ids, overlaps and ranks of n tokens from their logits `(n, V)` and the most probable tokens."""
    ids_base, ids_rl = top_base[1], top_rl[1]  # (n, depth)
    statistics = {"top1_base": ids_base[:, 0], "top1_rl": ids_rl[:, 0]}
    for name, k in numbered.items():
        if not name.startswith("overlap"):
            continue
        k = min(k, base.shape[-1])
        statistics[name] = (ids_base[:, :k, None] == ids_rl[:, None, :k]).sum(dim=(1, 2)) / k
    if "rank_base" in outputs:
        statistics["rank_base"] = ranks(base, ids, top_base, strip)
    if "rank_rl" in outputs:
        statistics["rank_rl"] = ranks(rl, ids, top_rl, strip)
    if "rl_top1_rank_base" in outputs:
        statistics["rl_top1_rank_base"] = ranks(base, ids_rl[:, 0], top_base, strip)
    return statistics


def _sizes(device: torch.device, vocab: int, memory_budget: int | None, copies: int) -> tuple[int, int]:
    """Tokens a strip and tokens a chunk, within the budget as far as speed allows."""
    row = 4 * vocab  # bytes
    limits = CPU if device.type == "cpu" else CUDA
    strip = max(1, limits.strip // row)
    left = (memory_budget or limits.memory) - copies * strip * row
    chunk = max(limits.smallest_chunk if memory_budget is None else 1, left // (2 * row))
    return strip, chunk // limits.multiple * limits.multiple or chunk


def _empty(name: str, size: int, device: torch.device) -> torch.Tensor:
    whole = name.startswith(("rank", "top1")) or name == "rl_top1_rank_base"
    return torch.empty(size, dtype=torch.int64 if whole else torch.float32, device=device)


def _check_names(outputs: Collection[str]) -> dict[str, int]:
    """The overlaps and masses among the outputs, with their k."""
    numbered: dict[str, int] = {}
    for name in outputs:
        kind, _, k = name.rpartition("_")
        if kind in ("overlap", *MASSES) and k.isdecimal() and int(k) > 0:
            numbered[name] = int(k)
        elif name not in STATISTICS:
            raise ValueError(
                f"outputs names {name!r}; known are {', '.join(STATISTICS)}, and overlap_k and mass_model_k for any k."
            )
    return numbered


def _check_shapes(
    hidden_base: torch.Tensor, hidden_rl: torch.Tensor, head_base: LMHead, head_rl: LMHead, token_ids: torch.Tensor
) -> None:
    if head_base.vocab_size != head_rl.vocab_size:
        raise ValueError(
            f"The heads have {head_base.vocab_size} and {head_rl.vocab_size} tokens; with the same tokenizer, "
            "compare head.prefix(size) of both."
        )
    for name, hidden, head in (("hidden_base", hidden_base, head_base), ("hidden_rl", hidden_rl, head_rl)):
        expected = (token_ids.numel(), head.weight.shape[1])
        if token_ids.dim() != 1 or hidden.shape != expected:
            raise ValueError(
                f"{name} has shape {tuple(hidden.shape)}, but token_ids {tuple(token_ids.shape)} and the head "
                f"{tuple(head.weight.shape)} ask for {expected}."
            )
    if token_ids.is_floating_point():
        raise ValueError(f"token_ids must be integers, not {token_ids.dtype}.")
    if token_ids.numel():
        low, high = token_ids.min().item(), token_ids.max().item()
        if low < 0 or high >= head_base.vocab_size:
            raise ValueError(
                f"token id {low if low < 0 else high} lies outside the vocabulary of {head_base.vocab_size} tokens."
            )
