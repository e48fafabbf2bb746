"""Weights that change nothing, so that the run is plain GRPO under another name."""

from tokenshift.trainer.diagnosis.registry import Found, register_sign
from tokenshift.trainer.diagnosis.run_record import FEWEST_LOGS, RunRecord

FEWEST_ACTIVE = 1e-3
"""Share of tokens with a weight further than 0.01 from 1 that some log must reach. A weight is within s/2 of 1, so
fewer than one active token in a thousand change the sum of the advantages' sizes by less than about s/2000. On the
embedded example up to 2 tokens in a hundred are active in a log, and 0.0008 in the least active log of a run."""


@register_sign(
    "The weights change nothing",
    "The weights of practically all tokens are 1 (or the terms added are 0): this is GRPO without a weighting.",
)
def inactive_weights(run: RunRecord) -> Found | None:
    """Seen where no log after the warm-up reaches `FEWEST_ACTIVE`; not of weights that are set to their mean."""
    if run.settings.get("weight_control") == "mean":
        return None
    for name in ("advantage_weight/frac_active", "advantage_bonus/frac_active"):
        active = run.series(name).finite().after(run.warmup)
        if len(active) >= FEWEST_LOGS and max(active.values) < FEWEST_ACTIVE:
            return Found(f"{name} is at most {max(active.values):.2g} in {len(active)} logs.", active.steps, _way(run))
    return None


def _way(run: RunRecord) -> str:
    equal = run.series("frac_reward_zero_std").finite()
    if len(equal) and min(equal.values) == 1:
        return "No group has an advantage, so the policy never moves: see to the rewards first (equal_groups)."
    scale = run.settings.get("divergence_scale")
    if run.settings.get("learning_rate") == 0:
        return "learning_rate is 0: raise it, since the policy never moves."
    if run.updates_per_generation == 1 and run.settings.get("divergence_reference", "old") == "old":
        return (
            "With one update per generation the policy is compared with itself: raise steps_per_generation or "
            "num_iterations, or set divergence_reference to base."
        )
    if isinstance(scale, int | float) and abs(scale) <= 0.02:
        return f"divergence_scale={scale:g} allows no weight further than {abs(scale) / 2:g} from 1: raise it."
    return (
        "Raise divergence_alpha (of a weighting of your own, its options), or let the policy move further within a "
        "generation: learning_rate, steps_per_generation, num_iterations."
    )
