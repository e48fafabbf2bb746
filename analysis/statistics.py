"""Statistics of two models' next-token distributions from their last hidden states, without `(B, T, V)` logits.

One pass over chunks of tokens: two projections, then strips of a few rows that stay in cache. The readable reference,
against which all of it is tested, is `tokenshift.analysis.divergence`.

Shape legend: N tokens, H hidden size, V vocabulary, R rows of a strip.
"""

import math
from collections.abc import Callable, Collection

import torch

from tokenshift.analysis.divergence import check_sampling
from tokenshift.analysis.lm_head import LMHead
from tokenshift.analysis.nucleus import truncated_divergences
from tokenshift.analysis.topk import block_maxima, top_k

OVERLAPS = (1, 2, 3, 5, 10)
TRUNCATED = ("js_top_p", "forward_kl_top_p", "reverse_kl_top_p")
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
    *TRUNCATED,
)
"""Every output by name; `overlap_{k}` may be asked for with any k >= 1."""

EXPECTATIONS = frozenset({"js", "forward_kl", "reverse_kl", "entropy_base", "entropy_rl"})
FROM_PROBABILITIES = EXPECTATIONS | {"logp_base", "logp_rl", "rl_top1_prob_base"}

CHUNK_BYTES = 512 * 2**20
STRIP_BYTES = 2**20  # of one matrix; a few of these fit a core's cache


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
    memory_budget: int = CHUNK_BYTES,
) -> dict[str, torch.Tensor]:
    """Statistics of each token's two distributions; only those named are computed.

    Args:
        hidden_base, hidden_rl: last hidden states `(N, H)`, after the final norm, float32, bfloat16 or float16; H may
            differ.
        head_base, head_rl: the projections, of equal vocabulary size.
        token_ids: `(N,)` int64, the tokens that followed.
        outputs: names of `STATISTICS`:
            `js`, `forward_kl` = KL(base‖RL), `reverse_kl` = KL(RL‖base), of the whole distributions, nats;
            `js_top_p`, `forward_kl_top_p`, `reverse_kl_top_p`, of those truncated to `top_p` and renormalised (a KL
            is inf where the supports differ so);
            `entropy_*`, nats; `logp_*`, nats, and `rank_*`, 1 for the most probable, of the token;
            `top1_*`, the most probable token's id; `rl_top1_rank_base`, `rl_top1_prob_base`, rank and probability
            under the base of RL's most probable token; `overlap_{k}`, share of the k most probable tokens that are
            the same.
            Of equally probable tokens the lower id comes first.
        temperature: divides all logits, as in TRL.
        top_p: of the truncated divergences alone.
        memory_budget: bytes that the projections of a chunk may take.

    Returns:
        A float32 tensor `(N,)` a name; int64 for ranks and ids.

    Raises:
        ValueError: for shapes that do not fit, ids outside the vocabulary, NaN, unknown names, or numbers out of
        range.
    """
    overlaps = _check_names(outputs)
    check_sampling(temperature, top_p)
    _check_shapes(hidden_base, hidden_rl, head_base, head_rl, token_ids)
    size, vocab = len(token_ids), head_base.vocab_size
    results = {name: _empty(name, size, token_ids.device) for name in outputs}
    if not size or not outputs:
        return results
    project_base, project_rl = _projection(head_base, temperature), _projection(head_rl, temperature)
    chunk = max(1, memory_budget // (2 * 4 * vocab))
    on_cpu = token_ids.device.type == "cpu"
    strip = max(1, STRIP_BYTES // (4 * vocab)) if on_cpu else chunk
    needed = frozenset(outputs)
    with torch.no_grad(), torch.autocast(token_ids.device.type, enabled=False):
        for start in range(0, size, chunk):
            rows = slice(start, start + chunk)
            base, rl = project_base(hidden_base[rows]), project_rl(hidden_rl[rows])  # (chunk, V) float32
            ids = token_ids[rows]
            for offset in range(0, len(ids), strip):
                part = slice(offset, offset + strip)
                found = _strip_statistics(base[part], rl[part], ids[part], needed, overlaps, top_p)
                for name in outputs:
                    results[name][rows][part] = found[name]
    if any(value.isnan().any() for value in results.values() if value.is_floating_point()):
        raise ValueError("The statistics are NaN for some tokens: the hidden states or a head hold NaN or infinities.")
    return results


def _strip_statistics(
    base: torch.Tensor,
    rl: torch.Tensor,
    ids: torch.Tensor,
    outputs: frozenset[str],
    overlaps: dict[str, int],
    top_p: float,
) -> dict[str, torch.Tensor]:
    """The outputs of R tokens from their logits `(R, V)`, which may be overwritten."""
    found: dict[str, torch.Tensor] = {}
    maxima_base, maxima_rl = block_maxima(base), block_maxima(rl)  # (R, V / block)
    depth = max(overlaps.values(), default=0)
    if outputs & {"top1_base", "top1_rl", "rl_top1_rank_base", "rl_top1_prob_base"}:
        depth = max(depth, 1)
    if depth:
        top_base, top_rl = top_k(base, depth, maxima_base)[1], top_k(rl, depth, maxima_rl)[1]
        found |= {"top1_base": top_base[:, 0], "top1_rl": top_rl[:, 0]}
        for name, k in overlaps.items():
            k = min(k, base.shape[-1])
            found[name] = (top_base[:, :k, None] == top_rl[:, None, :k]).sum(dim=(1, 2)) / k
    for name, logits, tokens in (
        ("rank_base", base, ids),
        ("rank_rl", rl, ids),
        ("rl_top1_rank_base", base, found.get("top1_rl")),
    ):
        if name in outputs and tokens is not None:
            found[name] = _rank(logits, tokens)
    logits_base, logits_rl = base.gather(-1, ids.unsqueeze(-1)), rl.gather(-1, ids.unsqueeze(-1))  # (R, 1)
    if "rl_top1_prob_base" in outputs:
        logits_top1 = base.gather(-1, found["top1_rl"].unsqueeze(-1))

    highest_base, highest_rl = maxima_base.amax(-1, keepdim=True), maxima_rl.amax(-1, keepdim=True)
    if outputs & set(TRUNCATED):
        truncated = truncated_divergences(base, rl, maxima_base, maxima_rl, top_p)
        found |= dict(zip(TRUNCATED, truncated, strict=True))

    if not outputs & FROM_PROBABILITIES:
        return found

    # x = logit - largest logit <= 0, e = exp(x), log p = x - log sum e
    x_base, x_rl = base.sub_(highest_base), rl.sub_(highest_rl)
    e_base, e_rl = x_base.exp(), x_rl.exp()
    z_base, z_rl = e_base.sum(-1, keepdim=True), e_rl.sum(-1, keepdim=True)
    log_z_base, log_z_rl = z_base.log(), z_rl.log()  # (R, 1)
    found["logp_base"] = (logits_base - highest_base - log_z_base).squeeze(-1)
    found["logp_rl"] = (logits_rl - highest_rl - log_z_rl).squeeze(-1)
    if "rl_top1_prob_base" in outputs:
        found["rl_top1_prob_base"] = (logits_top1 - highest_base - log_z_base).exp().squeeze(-1)
    if not outputs & EXPECTATIONS:
        return found

    def mean(e: torch.Tensor, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Expectation of x `(R, V)` under e / z, `(R,)`."""
        return _row_dot(e, x) / z.squeeze(-1)

    own_base = mean(e_base, z_base, x_base) - log_z_base.squeeze(-1)  # E[log p] under itself
    own_rl = mean(e_rl, z_rl, x_rl) - log_z_rl.squeeze(-1)
    found["entropy_base"], found["entropy_rl"] = -own_base, -own_rl
    if "forward_kl" in outputs:
        found["forward_kl"] = own_base - (mean(e_base, z_base, x_rl) - log_z_rl.squeeze(-1))
    if "reverse_kl" in outputs:
        found["reverse_kl"] = own_rl - (mean(e_rl, z_rl, x_base) - log_z_base.squeeze(-1))
    if "js" in outputs:
        # JS = (E_p log p + E_q log q) / 2 - sum m log m, m = (p + q) / 2
        m = e_base.mul_(0.5 / z_base).addcmul_(e_rl, 0.5 / z_rl)
        log_m = torch.log(m + torch.finfo(m.dtype).tiny, out=e_rl)
        found["js"] = (0.5 * (own_base + own_rl) - _row_dot(m, log_m)).clamp(0.0, math.log(2))
    for name in ("forward_kl", "reverse_kl", "entropy_base", "entropy_rl"):
        if name in found:
            found[name] = found[name].clamp(min=0.0)
    return found


def _row_dot(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Dot products of the rows of `(R, V)` matrices, `(R,)`, without a product of their size."""
    return torch.bmm(first.unsqueeze(1), second.unsqueeze(2)).flatten()


def _rank(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Rank of tokens `(R,)` in their rows, 1 for the first."""
    value = logits.gather(-1, tokens.unsqueeze(-1))
    before = torch.count_nonzero(logits > value, dim=-1)
    ties = logits == value
    lower = torch.arange(logits.shape[-1], device=logits.device) < tokens.unsqueeze(-1)
    return 1 + before + torch.count_nonzero(ties & lower, dim=-1)


def _projection(head: LMHead, temperature: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Hidden states `(n, H)` to float32 logits `(n, V)`, divided by the temperature."""
    mixed = head.weight.is_cuda and head.weight.dtype != torch.float32
    weight = head.weight if mixed else head.weight.float()
    bias = None if head.bias is None else head.bias.float()

    def project(hidden: torch.Tensor) -> torch.Tensor:
        if mixed:  # half inputs, products summed and kept in float32
            logits = torch.mm(hidden.to(weight.dtype), weight.t(), out_dtype=torch.float32)
        else:
            logits = torch.mm(hidden.to(weight.dtype), weight.t())
        if bias is not None:
            logits += bias
        if head.scale != 1:
            logits *= head.scale
        if head.softcap is not None:
            logits = logits.div_(head.softcap).tanh_().mul_(head.softcap)
        return logits.div_(temperature) if temperature != 1 else logits

    return project


def _empty(name: str, size: int, device: torch.device) -> torch.Tensor:
    whole = name.startswith(("rank", "top1")) or name == "rl_top1_rank_base"
    return torch.empty(size, dtype=torch.int64 if whole else torch.float32, device=device)


def _check_names(outputs: Collection[str]) -> dict[str, int]:
    """The overlaps among the outputs, with their k."""
    overlaps: dict[str, int] = {}
    for name in outputs:
        k = name.removeprefix("overlap_")
        if k != name and k.isdecimal() and int(k) > 0:
            overlaps[name] = int(k)
        elif name not in STATISTICS:
            raise ValueError(f"outputs names {name!r}; known are {', '.join(STATISTICS)} and overlap_k for any k.")
    return overlaps


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
    if token_ids.numel():
        low, high = token_ids.min().item(), token_ids.max().item()
        if low < 0 or high >= head_base.vocab_size:
            raise ValueError(
                f"token id {low if low < 0 else high} lies outside the vocabulary of {head_base.vocab_size} tokens."
            )
