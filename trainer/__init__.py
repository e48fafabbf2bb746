"""GRPO with divergence-weighted advantages, and a probe that watches distributions move, on TRL."""

from tokenshift.trainer.config import DivergenceGRPOConfig
from tokenshift.trainer.grpo import DivergenceGRPOTrainer
from tokenshift.trainer.probe.callback import ShiftProbeCallback

__all__ = ["DivergenceGRPOConfig", "DivergenceGRPOTrainer", "ShiftProbeCallback"]
