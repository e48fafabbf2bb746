"""The fixture that builds a trainer, as the trainer's own tests have it."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from helpers.tiny_training import SETTINGS, Build, digit_reward
from trl import GRPOTrainer

from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer


@pytest.fixture
def build(tiny_model: str, problems: Dataset, tmp_path: Path) -> Build:
    """`build(trainer_kwargs=None, **settings)`, a trainer that has not trained; it writes to `tmp_path / "out"`."""

    def make(*, trainer_kwargs: dict[str, Any] | None = None, **settings: Any) -> GRPOTrainer:
        args = DivergenceGRPOConfig(**{"output_dir": str(tmp_path / "out"), **SETTINGS, **settings})
        kwargs = {"reward_funcs": digit_reward, "train_dataset": problems, **(trainer_kwargs or {})}
        return DivergenceGRPOTrainer(model=tiny_model, args=args, **kwargs)

    return make
