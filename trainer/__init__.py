"""GRPO with divergence-weighted advantages, and a probe that watches distributions move, on TRL."""

from tokenshift.trainer.config import DivergenceGRPOConfig
from tokenshift.trainer.grpo import DivergenceGRPOTrainer
from tokenshift.trainer.probe.callback import ShiftProbeCallback
from tokenshift.trainer.weighting.registry import register_divergence, register_weighting
from tokenshift.trainer.weighting.tokens import Tokens

__all__ = [
    "DivergenceGRPOConfig",
    "DivergenceGRPOTrainer",
    "ShiftProbeCallback",
    "Tokens",
    "register_divergence",
    "register_weighting",
]
