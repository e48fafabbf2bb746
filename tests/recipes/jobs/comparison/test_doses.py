"""Doses of a comparison: variants that differ in alpha alone, or in s alone."""

from collections.abc import Callable
from pathlib import Path

from helpers.small_comparison import ROOT

from tokenshift.recipes.jobs.comparison.doses import doses_of
from tokenshift.recipes.jobs.comparison.file import read_comparison


def test_variants_of_one_weighting_that_differ_in_one_number_form_an_axis(
    write_comparison: Callable[..., Path],
) -> None:
    variants = """  high_kl:
  low_kl:
  ten: {advantage_weighting: sigmoid, divergence_alpha: 10}
  half: {advantage_weighting: sigmoid, divergence_scale: 0.5}
  other_rate: {advantage_weighting: sigmoid, divergence_alpha: 20, learning_rate: 1.0e-5}
  high_kl_shuffle:
  low_kl_shuffle:
  low_prob:
  random_20:"""
    doses = doses_of(read_comparison(write_comparison(("  high_kl:", variants))).variants)
    assert [(axis["axis"], axis["doses"]) for axis in doses] == [
        ("divergence_alpha", {"high_kl": 100.0, "low_kl": -100.0, "ten": 10.0}),
        ("divergence_alpha", {"high_kl_shuffle": 100.0, "low_kl_shuffle": -100.0}),
        ("divergence_scale", {"high_kl": 1.0, "half": 0.5}),
    ]
    assert [axis["of"] for axis in doses] == [
        "sigmoid, k3 against old, s = 1",
        "sigmoid+shuffle, k3 against old, s = 1",
        "sigmoid, k3 against old, alpha = 100",
    ]
    assert doses_of(read_comparison(write_comparison()).variants) == []


def test_the_shipped_doses() -> None:
    comparison = read_comparison(ROOT / "recipes" / "configs" / "compare_pocket_dose.yaml")
    alpha, scale = doses_of(comparison.variants)
    assert sorted(alpha["doses"].values()) == [-1000.0, -100.0, -10.0, 10.0, 100.0, 1000.0]
    assert sorted(scale["doses"].values()) == [1.0, 2.0]
    assert not set(comparison.seeds) & set(comparison.replication_seeds)
