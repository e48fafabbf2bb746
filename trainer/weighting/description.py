"""Texts about a weighting for plans, trackers, tables and model cards, from its entry in the registry."""

from typing import Any

from tokenshift.trainer.config import DivergenceGRPOConfig


def weighting_formula(args: DivergenceGRPOConfig) -> str:
    """The weights in one line of text, with the numbers used."""
    weighting = args.weighting
    parts = [weighting.formula]
    if "divergence" in weighting.needs:
        parts.append(f"D = {args.divergence_entry.name} against {args.divergence_reference}")
    elif weighting.reference_statistics:
        parts.append(f"against {args.divergence_reference}")
    parts += [f"{name} = {_text(value)}" for name, value in args.weighting_values.items()]
    return ", ".join(parts)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def divergence_formula(args: DivergenceGRPOConfig) -> str | None:
    """The divergence in one line of text, `k3: D = ...`; None if none is looked at."""
    entry = args.divergence_entry
    return f"{entry.name}: {entry.formula}" if args.watches_tokens else None


def _cell(text: str) -> str:
    """Text as code in a cell of a Markdown table."""
    return f"`{text}`".replace("|", "\\|")


def variant_name(args: DivergenceGRPOConfig) -> str:
    """A short name of the variant, for plans, groups and tables: `high_k3`, `low_k3+shuffle`, `low_prob`, `none`."""
    weighting = args.weighting
    name = weighting.name
    if weighting.variant is not None:
        name = weighting.variant(args.weighting_values, args.divergence_entry)
    if weighting.function is not None:
        name += f"+{args.weight_control}" if args.weight_control != "none" else ""
        name += "+normalized" if args.normalize_weights else ""
    return name


def weighting_section(args: DivergenceGRPOConfig) -> str:
    """A Markdown section: formula, control, and the updates per generation, without which k3 is always zero."""
    rounds = f"at most {args.dynamic_sampling_max_rounds} rounds" if args.dynamic_sampling else "no"
    if args.dynamic_sampling and args.dynamic_sampling_metric is not None:
        rounds += f", by `{args.dynamic_sampling_metric}`"
    return (
        "\n## Advantage weighting\n\n"
        f"{args.weighting.behaviour.said.format(weighting_formula(args))}\n\n"
        "| setting | value |\n|---|---|\n"
        f"| variant | {_cell(variant_name(args))} |\n"
        f"| divergence | {_cell(divergence_formula(args) or 'none')} |\n"
        f"| weight control | `{args.weight_control}` |\n"
        f"| weights normalised to mean 1 | {str(args.normalize_weights).lower()} |\n"
        f"| loss type | `{args.loss_type}` |\n"
        f"| dynamic sampling | {rounds} |\n"
        f"| updates per generation | {args.updates_per_generation:g} |\n\n"
        "Made with tokenshift, an implementation of [arXiv 2603.22446](https://huggingface.co/papers/2603.22446).\n"
    )
