"""The reason why a weighting changed nothing over a whole logging window."""

from tokenshift.trainer.config import DivergenceGRPOConfig
from tokenshift.trainer.weighting.metrics import ACTIVE


def inactivity_reason(args: DivergenceGRPOConfig, largest: float | None) -> str:
    """The most likely reason for `frac_active = 0`, and the setting to change, in one sentence or two.

    Args:
        args: the configuration.
        largest: the largest |D| of the window in nats; None if no divergence was finite.
    """
    name, options = args.weighting.name, args.weighting_values
    if name == "sigmoid" and options["s"] / 2 <= ACTIVE:
        return (
            f"divergence_scale={options['s']:g} allows no weight further than {options['s'] / 2:g} from 1; "
            "raise divergence_scale."
        )
    if name == "low_prob" and options["c"] <= ACTIVE:
        return f"low_prob_coef={options['c']:g} allows no weight beyond {1 + options['c']:g}; raise low_prob_coef."
    if name == "low_prob":
        return "every sampled token was certain for the rollout policy (temperature too low?)."
    if args.learning_rate == 0:
        return "learning_rate=0, so the policy never moves."
    if args.divergence_reference == "old" and not args.has_old_logps and not args.weighting.varies_at_first_update:
        return (
            f"with {args.updates_per_generation:g} update per generation the policy is compared with itself; raise "
            "num_iterations or steps_per_generation."
        )
    reached = "no divergence was finite" if largest is None else f"the largest divergence was {largest:.2g} nats"
    if name == "sigmoid":
        return (
            f"{reached}, too little for divergence_alpha={options['alpha']:g}; the policy moves too little (raise "
            "learning_rate, num_iterations or steps_per_generation) or divergence_alpha is too small."
        )
    return (
        f"{reached}; the policy moves too little (learning_rate, num_iterations, steps_per_generation), or "
        f"{name}'s options allow too little."
    )
