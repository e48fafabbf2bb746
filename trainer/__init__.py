"""GRPO with divergence-weighted advantages, and a probe that watches distributions move, on TRL.

Each name is imported, and TRL with it, when it is first used.
"""

from typing import TYPE_CHECKING

from tokenshift.analysis.lazy_face import lazy_face

if TYPE_CHECKING:
    from tokenshift.trainer.config import DivergenceGRPOConfig as DivergenceGRPOConfig
    from tokenshift.trainer.grpo import DivergenceGRPOTrainer as DivergenceGRPOTrainer
    from tokenshift.trainer.probe.callback import ShiftProbeCallback as ShiftProbeCallback
    from tokenshift.trainer.reference import DistributionReference as DistributionReference
    from tokenshift.trainer.weighting.registry import register_divergence as register_divergence
    from tokenshift.trainer.weighting.registry import register_weighting as register_weighting
    from tokenshift.trainer.weighting.tokens import Tokens as Tokens
else:
    __getattr__, __dir__, __all__ = lazy_face(__name__)
