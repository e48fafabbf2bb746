"""Options of a training that have no effect because of the rewards or the weighting, which are registered."""

from typing import Any

from tokenshift.recipes.inputs.judging import verification_without_effect
from tokenshift.rewards.registry import REWARDS, SOFT_OVERLONG
from tokenshift.trainer.weighting.registry import WEIGHTINGS


def registered_without_effect(values: Any) -> dict[str, str]:
    """The options that have no effect, with the reason and what to do.

    Args:
        values: The values of all options, as attributes.

    Raises:
        ValueError: For an unknown reward.
    """
    reasons = verification_without_effect(values.reward_funcs)

    def add(names: tuple[str, ...], reason: str) -> None:
        reasons.update(dict.fromkeys(names, reason))

    taken = {option for name in values.reward_funcs for option in REWARDS.get(name).options}
    if missing := tuple(name for name in ("overlong_max_length", "overlong_cache") if name not in taken):
        add(missing, f"no reward of reward_funcs takes it; add {SOFT_OVERLONG}, or leave it out.")
    _add_weighting(values, add)
    return reasons


def _add_weighting(values: Any, add: Any) -> None:
    weighting = WEIGHTINGS.get(values.advantage_weighting)
    shipped = {field for name in WEIGHTINGS for field in WEIGHTINGS.get(name).fields.values()}
    others = tuple(sorted(shipped - set(weighting.fields.values())))
    add(others, f"advantage_weighting={values.advantage_weighting!r} does not take it; leave it out.")
    if weighting.function is not None:
        if not values.log_divergence:
            add(("log_divergence",), "divergences are always logged where advantages are weighted; leave it out.")
        return
    add(("weight_control", "normalize_weights"), "advantage_weighting is none; leave it out.")
    if not values.log_divergence:
        names = ("divergence", "divergence_reference", "divergence_top_p", "reference_cache_gib")
        add(names, "advantage_weighting is none; give --log_divergence true to log it, or leave it out.")
