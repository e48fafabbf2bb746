"""Descriptions of a weighting in plans, cards and tables."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tokenshift.trainer import DivergenceGRPOConfig, register_divergence, register_weighting
from tokenshift.trainer.weighting.description import (
    divergence_formula,
    variant_name,
    weighting_formula,
    weighting_section,
)

LOW, HIGH = ", alpha = -3, s = 1", ", alpha = 100, s = 1"
SIGMOID = "w = 1 + s * (sigmoid(alpha * D) - 1/2), D = "
K3 = "k3: D = exp(d) - 1 - d, d = log pi_theta - log pi_old"


@register_weighting(formula="b = c * (JS - D)", needs=("js", "divergence"), kind="additive")
def described(tokens: Any, *, c: float = 0.5, mode: str = "plain") -> torch.Tensor:
    return c * (tokens.js - tokens.divergence)


@register_weighting(formula="m = [JS > 0.1]", needs=("js",), kind="mask")
def cut(tokens: Any) -> torch.Tensor:
    return tokens.js > 0.1


@register_divergence(formula="D = |d|")
def distance(logps: torch.Tensor, old_logps: torch.Tensor) -> torch.Tensor:
    return (logps - old_logps).abs()


@pytest.mark.parametrize(
    ("settings", "name", "formula", "divergence"),
    [
        ({}, "high_k3", SIGMOID + "k3 against old" + HIGH, K3),
        ({"divergence_alpha": -3, "weight_control": "mean"}, "low_k3+mean", SIGMOID + "k3 against old" + LOW, K3),
        (
            {"divergence": "js", "divergence_reference": "base", "normalize_weights": True},
            "high_js+normalized",
            SIGMOID + "js against base, alpha = 100, s = 1",
            "js: D = JS(reference, pi_theta)",
        ),
        ({"divergence": "distance"}, "high_distance", SIGMOID + "distance against old" + HIGH, "distance: D = |d|"),
        ({"advantage_weighting": "low_prob"}, "low_prob", "w = 1 + c - c * pi_old(token), c = 0.2", K3),
        ({"advantage_weighting": "none", "weight_control": "mean"}, "none", "w = 1 (stock GRPO)", None),
        ({"advantage_weighting": "none", "log_divergence": True}, "none", "w = 1 (stock GRPO)", K3),
        (
            {"advantage_weighting": "described", "weighting_options": {"c": 2}},
            "described",
            "b = c * (JS - D), D = k3 against old, c = 2, mode = plain",
            K3,
        ),
        ({"advantage_weighting": "cut", "weight_control": "mean"}, "cut+mean", "m = [JS > 0.1], against old", K3),
    ],
)
def test_entries_speak_for_themselves(
    tmp_path: Path, settings: dict[str, Any], name: str, formula: str, divergence: str | None
) -> None:
    defaults = {"num_iterations": 2, "use_cpu": True, "bf16": False, "report_to": []}
    args = DivergenceGRPOConfig(output_dir=str(tmp_path), **defaults, **settings)
    assert (variant_name(args), weighting_formula(args), divergence_formula(args)) == (name, formula, divergence)
    section = weighting_section(args)
    assert f"`{formula}`" in section
    assert f"| variant | `{name}` |" in section
    assert section.count(" |\n") == 8
    assert "| divergence | `" + (divergence or "none").replace("|", r"\|") + "` |" in section


def test_a_card_says_what_was_done_with_the_values(tmp_path: Path) -> None:
    starts = {
        "sigmoid": "Each token's advantage was multiplied by `w",
        "described": "To each token's advantage was added `b",
        "cut": "The advantage of each token was kept where `m",
    }
    for weighting, words in starts.items():
        args = DivergenceGRPOConfig(
            output_dir=str(tmp_path), num_iterations=2, use_cpu=True, bf16=False, advantage_weighting=weighting
        )
        assert words in weighting_section(args)
