"""What a model card says of the weighting that trained the model."""

from tokenshift.trainer.config import DivergenceGRPOConfig


def weighting_formula(args: DivergenceGRPOConfig) -> str:
    """The weights in one line of text, with the numbers used."""
    if args.advantage_weighting == "none":
        return "w = 1 (stock GRPO)"
    if args.advantage_weighting == "low_prob":
        return f"w = 1 + c - c * pi_old(token), c = {args.low_prob_coef:g}"
    return (
        f"w = 1 + s * (sigmoid(alpha * D) - 1/2), D = {args.divergence} against {args.divergence_reference}, "
        f"alpha = {args.divergence_alpha:g}, s = {args.divergence_scale:g}"
    )


def variant_name(args: DivergenceGRPOConfig) -> str:
    """A short name of the variant, for plans, groups and tables: `high_k3`, `low_k3+shuffle`, `low_prob`, `none`."""
    name: str = args.advantage_weighting
    if name == "sigmoid":
        name = f"{'high' if args.divergence_alpha > 0 else 'low'}_{args.divergence}"
    if name != "none":
        name += f"+{args.weight_control}" if args.weight_control != "none" else ""
        name += "+normalized" if args.normalize_weights else ""
    return name


def weighting_section(args: DivergenceGRPOConfig) -> str:
    """A Markdown section: formula, control, and the updates per generation, without which k3 is always zero."""
    rounds = f"at most {args.dynamic_sampling_max_rounds} rounds" if args.dynamic_sampling else "no"
    return (
        "\n## Advantage weighting\n\n"
        f"Each token's advantage was multiplied by `{weighting_formula(args)}`.\n\n"
        "| setting | value |\n|---|---|\n"
        f"| variant | `{variant_name(args)}` |\n"
        f"| weight control | `{args.weight_control}` |\n"
        f"| weights normalised to mean 1 | {str(args.normalize_weights).lower()} |\n"
        f"| loss type | `{args.loss_type}` |\n"
        f"| dynamic sampling | {rounds} |\n"
        f"| updates per generation | {args.updates_per_generation:g} |\n\n"
        "Made with tokenshift, an implementation of [arXiv 2603.22446](https://huggingface.co/papers/2603.22446).\n"
    )
