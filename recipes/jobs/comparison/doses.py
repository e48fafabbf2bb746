"""The doses of a comparison: variants that differ in `divergence_alpha` alone, or in `divergence_scale` alone."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tokenshift.recipes.jobs.comparison.variants import WITHOUT_EFFECT, Variant
from tokenshift.trainer.weighting.description import variant_name

AXES = ("divergence_alpha", "divergence_scale")
"""Arguments that are a weighting's dose: its alpha and its s."""


def doses_of(variants: Mapping[str, Variant]) -> list[dict[str, Any]]:
    """The weightings of which a comparison has several doses.

    Args:
        variants: All variants by name.

    Returns:
        For each weighting and axis a dictionary with `axis`, `of` (what the weighting is), and `doses`, the dose by
        variant, two or more different ones.
    """
    axes = []
    for axis in AXES:
        groups: dict[str, dict[str, float]] = {}
        for variant in variants.values():
            if axis in variant.args.weighting.fields.values():
                groups.setdefault(_everything_but(axis, variant), {})[variant.name] = float(
                    getattr(variant.args, axis)
                )
        for doses in groups.values():
            if len(doses) > 1:  # no two variants train alike, so the doses differ
                axes.append({"axis": axis, "of": _weighting_words(axis, variants[next(iter(doses))]), "doses": doses})
    return axes


def _everything_but(axis: str, variant: Variant) -> str:
    """Every argument on which a trained weight depends, apart from the axis, as a key."""
    ignored = {*WITHOUT_EFFECT, axis}
    return repr(
        [
            (field.name, getattr(arguments, field.name))
            for arguments in (variant.recipe, variant.args, variant.model)
            for field in fields(arguments)
            if field.name not in ignored
        ]
    )


def _weighting_words(axis: str, variant: Variant) -> str:
    args = variant.args
    controls = "".join(f"+{part}" for part in variant_name(args).split("+")[1:])
    fixed = {
        "divergence_alpha": f"s = {args.divergence_scale:g}",
        "divergence_scale": f"alpha = {args.divergence_alpha:g}",
    }
    return f"{args.weighting.name}{controls}, {args.divergence} against {args.divergence_reference}, {fixed[axis]}"
