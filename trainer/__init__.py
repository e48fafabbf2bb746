"""GRPO with divergence-weighted advantages, on top of TRL."""

from tokenshift.trainer.config import DivergenceGRPOConfig
from tokenshift.trainer.grpo import DivergenceGRPOTrainer

__all__ = ["DivergenceGRPOConfig", "DivergenceGRPOTrainer"]
