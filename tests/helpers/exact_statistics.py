"""Every per-token statistic from whole logits, the plain way: the oracle of the fast paths."""

import torch

from tokenshift.analysis.divergence.from_logits import entropy, js_divergence, kl_divergence, log_probabilities


def rank(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    order = torch.sort(logits, dim=-1, descending=True, stable=True).indices
    return (order == ids.unsqueeze(-1)).int().argmax(-1) + 1


def oracle(p: torch.Tensor, q: torch.Tensor, ids: torch.Tensor, top_p: float) -> dict[str, torch.Tensor]:
    order_p, order_q = (torch.sort(x, dim=-1, descending=True, stable=True).indices for x in (p, q))
    one = ids.unsqueeze(-1)
    out = {
        "js": js_divergence(p, q),
        "forward_kl": kl_divergence(p, q),
        "reverse_kl": kl_divergence(q, p),
        "entropy_base": entropy(p),
        "entropy_rl": entropy(q),
        "logp_base": log_probabilities(p).gather(-1, one).squeeze(-1),
        "logp_rl": log_probabilities(q).gather(-1, one).squeeze(-1),
        "rank_base": rank(p, ids),
        "rank_rl": rank(q, ids),
        "top1_base": order_p[:, 0],
        "top1_rl": order_q[:, 0],
        "rl_top1_rank_base": rank(p, order_q[:, 0]),
        "rl_top1_prob_base": log_probabilities(p).exp().gather(-1, order_q[:, :1]).squeeze(-1),
        "js_top_p": js_divergence(p, q, top_p=top_p),
        "forward_kl_top_p": kl_divergence(p, q, top_p=top_p),
        "reverse_kl_top_p": kl_divergence(q, p, top_p=top_p),
    }
    for k in (1, 2, 3, 5, 10):
        kk = min(k, p.shape[-1])
        same = [len(set(a[:kk].tolist()) & set(b[:kk].tolist())) / kk for a, b in zip(order_p, order_q, strict=True)]
        out[f"overlap_{k}"] = torch.tensor(same)
        for name, logits in (("mass_base", p), ("mass_rl", q)):
            out[f"{name}_{k}"] = log_probabilities(logits).exp().gather(-1, order_p[:, :kk]).sum(-1)
    return out
