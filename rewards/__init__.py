"""Verifiable rewards with TRL's reward signature; each is imported when it is first used."""

from typing import TYPE_CHECKING

from tokenshift.analysis.lazy_face import lazy_face

if TYPE_CHECKING:
    from tokenshift.rewards.accuracy import accuracy_reward as accuracy_reward
    from tokenshift.rewards.accuracy import configure_verification as configure_verification
    from tokenshift.rewards.accuracy import signed_accuracy_reward as signed_accuracy_reward
    from tokenshift.rewards.extractors import load_extractor as load_extractor
    from tokenshift.rewards.extractors import register_extractor as register_extractor
    from tokenshift.rewards.format import format_reward as format_reward
    from tokenshift.rewards.registry import load_reward as load_reward
    from tokenshift.rewards.registry import register_reward as register_reward
else:
    __getattr__, __dir__, __all__ = lazy_face(__name__)
