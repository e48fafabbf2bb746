"""A policy that has left its base."""

from tokenshift.trainer.diagnosis.registry import Found, register_sign
from tokenshift.trainer.diagnosis.run_record import RunRecord

MOST_KL = 1.0
"""KL from the base in nats per token: the sampled tokens' probabilities differ from the base's by a factor of e on
(geometric) average. A response of 100 tokens is then 100 nats away; Gao et al. (arXiv 2210.10760) see rewards
over-optimised at some dozens of nats per response."""

FEWEST = 2
"""Logs above it: the estimator k3 holds exp(d), so that one token can blow up a single log."""

KL_KINDS = ("k1", "k2", "k3", "forward_kl", "reverse_kl")


@register_sign(
    "The KL from the base blows up",
    "The policy writes what its base practically never would: often a way to the reward that nobody meant.",
)
def kl_blow_up(run: RunRecord) -> Found | None:
    """Seen where `kl` (logged with `beta`), or a KL divergence from the base, is above `MOST_KL` in `FEWEST` logs."""
    names = ["kl"]
    if run.settings.get("divergence_reference") == "base" and run.settings.get("divergence") in KL_KINDS:
        names.append("divergence/mean")
    for name in names:
        values = run.series(name).finite()
        high = values.where(lambda value: value > MOST_KL)
        if len(high) >= FEWEST:
            return Found(
                f"{name} is above {MOST_KL:g} nat per token in {len(high)} of {len(values)} logs, and "
                f"{values.last(0.1).mean:.3g} at last.",
                high.steps,
                "Raise beta, lower learning_rate, or take a checkpoint from before; read completions of these updates "
                "(log_completions).",
            )
    return None
