"""How the trainer's tests train: a tiny model, a few updates, a reward with spread."""

from collections.abc import Callable
from typing import Any

import torch
from trl import GRPOTrainer

SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-2,
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "steps_per_generation": 2,
    "max_completion_length": 12,
    "max_steps": 4,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
    "seed": 3,
}


def digit_reward(completions: list[str], **columns: Any) -> list[float]:
    """Share of digits in a completion: varies within every group of a random model's completions."""
    return [sum(map(str.isdigit, text)) / (len(text) + 1) for text in completions]


def even_digits(completions: list[str], **columns: Any) -> list[float]:
    """Whether a completion has an even number of digits: about every second one, and nobody has to verify it."""
    return [1.0 - sum(map(str.isdigit, text)) % 2 for text in completions]


def parameters(trainer: GRPOTrainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


Build = Callable[..., GRPOTrainer]
