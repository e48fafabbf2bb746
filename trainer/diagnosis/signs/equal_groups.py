"""Groups whose completions all have the same reward, and so no advantage."""

from tokenshift.trainer.diagnosis.registry import Found, register_sign
from tokenshift.trainer.diagnosis.run_record import FEWEST_GENERATIONS, RunRecord

MOST_EQUAL = 0.5
"""Mean share of such groups over the run. Advantages are differences within a group, so these groups teach nothing,
and above one half the batch that teaches is less than half as large as the settings say. DAPO (arXiv 2503.14476) names
this loss of gradient signal and replaces such groups by dynamic sampling."""


@register_sign(
    "Most groups teach nothing",
    "All completions of a group have the same reward, so their advantages are 0 and only the others are trained on.",
)
def equal_groups(run: RunRecord) -> Found | None:
    """Seen where `frac_reward_zero_std` is above `MOST_EQUAL` on average; not with dynamic sampling, which counts the
    groups that it replaced."""
    share = run.series("frac_reward_zero_std").finite()
    if len(share) < FEWEST_GENERATIONS or run.names(r"dynamic_sampling/rounds") or share.mean <= MOST_EQUAL:
        return None
    rewards = run.series("reward").finite()
    level = f", reward {rewards.mean:.3g}" if len(rewards) else ""
    return Found(
        f"frac_reward_zero_std is {share.mean:.2f} on average{level}.",
        share.where(lambda value: value > MOST_EQUAL).steps,
        "Set dynamic_sampling to true, raise num_generations or temperature, or take problems that the model answers "
        "rightly some of the time: harder ones where rewards are high, easier ones where they are low.",
    )
