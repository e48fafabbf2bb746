"""The distance of `token_statistics` from float64 arithmetic on the same hidden states and heads."""

from dataclasses import replace

import torch

from tokenshift.analysis import STATISTICS, LMHead, entropy, js_divergence, kl_divergence, token_statistics
from tokenshift.recipes.benchmarks.statistics_cost import Shapes, make_inputs

DTYPES = ("float32", "bfloat16", "float16")
TOP_P = 0.7


def exact_statistics(p: torch.Tensor, q: torch.Tensor, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """The outputs that are real numbers, from float64 logits `(N, V)`, by the readable reference."""
    token_column = ids.unsqueeze(-1)
    logp, logq = torch.log_softmax(p, -1), torch.log_softmax(q, -1)
    return {
        "js": js_divergence(p, q),
        "forward_kl": kl_divergence(p, q),
        "reverse_kl": kl_divergence(q, p),
        "entropy_base": entropy(p),
        "entropy_rl": entropy(q),
        "logp_base": logp.gather(-1, token_column).squeeze(-1),
        "logp_rl": logq.gather(-1, token_column).squeeze(-1),
        "rl_top1_prob_base": logp.gather(-1, q.argmax(-1, keepdim=True)).exp().squeeze(-1),
        "js_top_p": js_divergence(p, q, top_p=TOP_P),
        "forward_kl_top_p": kl_divergence(p, q, top_p=TOP_P),
        "reverse_kl_top_p": kl_divergence(q, p, top_p=TOP_P),
    }


def errors(shapes: Shapes, tokens: int = 128) -> dict[str, dict[str, tuple[float, float]]]:
    """Largest absolute and relative error of each output, by dtype of the inputs.

    Relative errors are of values above 1e-3; a KL that is inf on one side alone counts as inf.
    """
    by_dtype: dict[str, dict[str, tuple[float, float]]] = {}
    for dtype in DTYPES:
        base, rl, head_base, head_rl, ids = make_inputs(replace(shapes, tokens=tokens, dtype=dtype))
        ours = token_statistics(base, rl, head_base, head_rl, ids, outputs=STATISTICS, top_p=TOP_P)
        parts = [
            exact_statistics(_logits(base[rows], head_base), _logits(rl[rows], head_rl), ids[rows])
            for rows in torch.arange(tokens, device=ids.device).split(16)
        ]
        by_dtype[dtype] = {}
        for name in parts[0]:
            expected, value = torch.cat([part[name] for part in parts]), ours[name].double()
            if not torch.equal(expected.isinf(), value.isinf()):
                by_dtype[dtype][name] = (float("inf"), float("inf"))
                continue
            apart = (expected - value).abs()[expected.isfinite()]
            size = expected.abs()[expected.isfinite()]
            relative = (apart / size)[size > 1e-3]
            by_dtype[dtype][name] = (_largest(apart), _largest(relative))
    return by_dtype


def _largest(values: torch.Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0


def _logits(hidden: torch.Tensor, head: LMHead) -> torch.Tensor:
    return hidden.double() @ head.weight.double().t()
