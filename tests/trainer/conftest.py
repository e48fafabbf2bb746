"""The fixture that builds a trainer."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from helpers.tiny_training import SETTINGS, Build, digit_reward
from trl import GRPOConfig, GRPOTrainer

from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer


@pytest.fixture
def build(tiny_model: str, problems: Dataset, tmp_path: Path) -> Build:
    """`build(stock=False, peft_config=None, trainer_class=None, **settings)`, a trainer that has not trained."""

    def make(
        *, stock: bool = False, trainer_class: type | None = None, trainer_kwargs: dict | None = None, **settings: Any
    ) -> GRPOTrainer:
        config = GRPOConfig if stock else DivergenceGRPOConfig
        args = config(**{"output_dir": str(tmp_path / "out"), **SETTINGS, **settings})
        trainer = trainer_class or (GRPOTrainer if stock else DivergenceGRPOTrainer)
        kwargs = {"reward_funcs": digit_reward, "train_dataset": problems, **(trainer_kwargs or {})}
        return trainer(model=tiny_model, args=args, **kwargs)

    return make
