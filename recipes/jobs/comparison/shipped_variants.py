"""Variants that a comparison may name without saying what they are.

Each sets every field that tells variants apart, so that it is the same variant over any config. What they have in
common (DAPO's clipping and loss, dynamic sampling, the model, the data) is the config's.
"""

from typing import Any

_UNWEIGHTED: dict[str, Any] = {
    "advantage_weighting": "none",
    "weighting_options": None,
    "divergence": "k3",
    "divergence_reference": "old",
    "divergence_alpha": 100.0,
    "divergence_scale": 1.0,
    "divergence_top_p": 1.0,
    "weight_control": "none",
    "normalize_weights": False,
    "top_entropy_quantile": 1.0,
}
_HIGH_KL = {**_UNWEIGHTED, "advantage_weighting": "sigmoid"}
_LOW_KL = {**_HIGH_KL, "divergence_alpha": -100.0}
_HIGH_JS_BASE = {**_HIGH_KL, "divergence": "js", "divergence_reference": "base"}
_LOW_JS_BASE = {**_HIGH_JS_BASE, "divergence_alpha": -100.0}

SHIPPED: dict[str, dict[str, Any]] = {
    "dapo": _UNWEIGHTED,
    # of arXiv 2603.22446, which publishes neither alpha nor s
    "high_kl": _HIGH_KL,
    "low_kl": _LOW_KL,
    # this project's question: tokens that have moved from the base, not within a generation
    "high_js_base": _HIGH_JS_BASE,
    "low_js_base": _LOW_JS_BASE,
    "entropy_top20": {**_UNWEIGHTED, "top_entropy_quantile": 0.2},  # arXiv 2506.01939
    # the same share of the tokens, whatever their entropy
    "random_20": {**_UNWEIGHTED, "advantage_weighting": "random_share", "weighting_options": {"share": 0.2}},
    "low_prob": {**_UNWEIGHTED, "advantage_weighting": "low_prob", "low_prob_coef": 0.2},  # arXiv 2603.22117
    # is it the targeting, or noise of the same size, or another step size?
    "high_kl_shuffle": {**_HIGH_KL, "weight_control": "shuffle"},
    "high_kl_mean": {**_HIGH_KL, "weight_control": "mean"},
    "high_kl_normalized": {**_HIGH_KL, "normalize_weights": True},
    "low_kl_shuffle": {**_LOW_KL, "weight_control": "shuffle"},
    "low_kl_mean": {**_LOW_KL, "weight_control": "mean"},
    "low_kl_normalized": {**_LOW_KL, "normalize_weights": True},
    "high_js_base_shuffle": {**_HIGH_JS_BASE, "weight_control": "shuffle"},
    "low_js_base_shuffle": {**_LOW_JS_BASE, "weight_control": "shuffle"},
}
