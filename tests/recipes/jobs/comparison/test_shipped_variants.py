"""Shipped variants are the published ways of weighting."""

from tokenshift.recipes.jobs.comparison.shipped_variants import SHIPPED
from tokenshift.trainer import DivergenceGRPOConfig
from tokenshift.trainer.weighting.description import variant_name


def test_shipped_variants_are_those_of_the_question() -> None:
    made = {
        name: DivergenceGRPOConfig(output_dir="x", num_iterations=2, use_cpu=True, bf16=False, **overrides)
        for name, overrides in SHIPPED.items()
    }
    assert {name: variant_name(args) for name, args in made.items()} == {
        "dapo": "none",
        "high_kl": "high_k3",
        "low_kl": "low_k3",
        "high_js_base": "high_js",
        "low_js_base": "low_js",
        "entropy_top20": "none",
        "random_20": "random_20",
        "low_prob": "low_prob",
        "high_kl_shuffle": "high_k3+shuffle",
        "high_kl_mean": "high_k3+mean",
        "high_kl_normalized": "high_k3+normalized",
        "low_kl_shuffle": "low_k3+shuffle",
        "low_kl_mean": "low_k3+mean",
        "low_kl_normalized": "low_k3+normalized",
        "high_js_base_shuffle": "high_js+shuffle",
        "low_js_base_shuffle": "low_js+shuffle",
    }
    assert (made["entropy_top20"].top_entropy_quantile, made["high_js_base"].divergence_reference) == (0.2, "base")
