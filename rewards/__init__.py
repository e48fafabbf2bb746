"""Verifiable rewards with TRL's reward signature, and the answers that a majority vote counts.

A name is imported on first use: the verification processes import this package too, and must stay small.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenshift.rewards.accuracy import accuracy_reward, configure_verification
    from tokenshift.rewards.extractors import load_extractor, register_extractor
    from tokenshift.rewards.format import format_reward
    from tokenshift.rewards.registry import load_reward, register_reward

_MODULES = {
    "accuracy_reward": "accuracy",
    "configure_verification": "accuracy",
    "format_reward": "format",
    "load_extractor": "extractors",
    "load_reward": "registry",
    "register_extractor": "extractors",
    "register_reward": "registry",
}

__all__ = [
    "accuracy_reward",
    "configure_verification",
    "format_reward",
    "load_extractor",
    "load_reward",
    "register_extractor",
    "register_reward",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
