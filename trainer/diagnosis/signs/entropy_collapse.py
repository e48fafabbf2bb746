"""A policy whose entropy is spent."""

from tokenshift.trainer.diagnosis.registry import Found, register_sign
from tokenshift.trainer.diagnosis.run_record import FEWEST_LOGS, RunRecord

LEAST_LEFT = 0.1
"""Share of the first logs' entropy that must be left in the last ones. "The Entropy Mechanism of Reinforcement
Learning for Reasoning Language Models" (arXiv 2505.22617) finds reward = -a exp(entropy) + b over many runs, so
what can still be gained shrinks with the entropy. How little is a collapse nobody has fixed: a tenth is this
project's value. The embedded example keeps six tenths."""

PART = 0.1
"""The share of the logs that "first" and "last" mean; at least two."""


@register_sign(
    "The entropy has collapsed",
    "The policy is nearly certain of every token: the completions of a group are alike, and little can be learnt.",
)
def entropy_collapse(run: RunRecord) -> Found | None:
    """Seen where the last logs' `entropy` is below `LEAST_LEFT` of the first logs'."""
    entropy = run.series("entropy").finite()
    if len(entropy) < FEWEST_LOGS:
        return None
    share = max(PART, 2 / len(entropy))
    first, last = entropy.first(share), entropy.last(share)
    if first.mean <= 0 or last.mean >= LEAST_LEFT * first.mean:
        return None
    low = entropy.where(lambda value: value < LEAST_LEFT * first.mean)
    return Found(
        f"entropy: {first.mean:.3g} nats at first, {last.mean:.3g} at last, {last.mean / first.mean:.1%} of it.",
        low.steps,
        "Raise epsilon_high (DAPO's is 0.28), set entropy_coef or use_adaptive_entropy, add beta, lower "
        "learning_rate, or take an earlier checkpoint.",
    )
