"""Verifiable rewards with TRL's reward signature."""

from tokenshift.rewards.accuracy import accuracy_reward, configure_verification
from tokenshift.rewards.format import format_reward
from tokenshift.rewards.registry import load_reward

__all__ = ["accuracy_reward", "configure_verification", "format_reward", "load_reward"]
