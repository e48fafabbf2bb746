"""Pocket's base beside a moved copy of it, and requests of its problems."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.token_ids import encode_prompt
from tokenshift.recipes.pocket.problems import pocket_dataset

BASE = Path(__file__).parents[2] / "recipes" / "pocket" / "base"

THRESHOLDS = {
    "js": 0.01,
    "forward_kl": 0.02,
    "reverse_kl": 0.02,
    "entropy_primary": 0.2,
    "entropy_intervention": 0.2,
    "delta_logp": 0.05,
    "js_top_p": 0.01,
    "random": 0.8,
    "random_disagreement": 0.5,
    "position": -6.0,
    "all": 0.0,
    "none": 0.0,
}
"""A threshold for each shipped criterion, above which some positions of these models lie."""


def base_and_moved() -> tuple[Any, Any, Any]:
    """Pocket's base, the same with noise on its weights, and the tokenizer."""
    base, moved = (AutoModelForCausalLM.from_pretrained(BASE).eval() for _ in range(2))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return base, moved, AutoTokenizer.from_pretrained(BASE)


def save_moved(folder: Path, scale: float) -> Path:
    """Write pocket's base with noise on its weights, `scale` of each one's spread, and its tokenizer."""
    model: Any = AutoModelForCausalLM.from_pretrained(BASE)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * parameter.std() * torch.randn_like(parameter))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(folder)
    return folder


def refuse_loading(patch: pytest.MonkeyPatch, message: str = "a model was loaded") -> None:
    """Let a test fail where a model is loaded; without its numbers, which shows whether its weights are there, it may.

    Args:
        patch: undoes it.
        message: what is said of it.
    """
    load = AutoModelForCausalLM.from_pretrained

    def load_without_numbers(*arguments: Any, device_map: Any = None, **options: Any) -> Any:
        if device_map != "meta":
            pytest.fail(message)
        return load(*arguments, device_map=device_map, **options)

    patch.setattr(AutoModelForCausalLM, "from_pretrained", load_without_numbers)


def requests(tokenizer: Any, problems: int, samples: int = 1) -> list[Request]:
    """Requests for the first problems of the analysis split."""
    prompts = pocket_dataset("analysis", problems)["prompt"]
    return [
        Request((n, k), encode_prompt(tokenizer, prompt)) for n, prompt in enumerate(prompts) for k in range(samples)
    ]
