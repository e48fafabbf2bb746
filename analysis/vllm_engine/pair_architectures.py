"""Names under which vLLM finds the pair model: one per architecture that it can hold, made when vLLM starts.

vLLM reads interface flags and config updates by the name of an architecture, which a wrapper would hide. So each pair
has a class of its own, with the flags of the model inside, and an alias among the config updates.
"""

import ctypes
import os
import signal
import sys
from typing import Any

PREFIX = "TokenshiftPair"
"""Beginning of a pair's architecture name; the name of the architecture inside follows."""

MODEL_MODULE = "tokenshift.analysis.vllm_engine.pair_model"
"""Module whose attributes are the pair classes."""

PARENT_VARIABLE = "TOKENSHIFT_ENGINE_ENDS_WITH_PARENT"
"""Environment variable that is set for the processes of an engine, which end when their parent does."""

_PR_SET_PDEATHSIG = 1


def pair_name(architecture: str) -> str:
    """The architecture of two models of an architecture side by side."""
    return f"{PREFIX}{architecture}"


def register() -> None:
    """Make the pair models known: the entry point of `vllm.general_plugins`, called in every process of vLLM.

    It registers names alone, so that engines without a pair start as before.
    """
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    for architecture in list(ModelRegistry.models):
        if not architecture.startswith(PREFIX):
            ModelRegistry.models.setdefault(pair_name(architecture), _lazy(pair_name(architecture)))
    for architecture, update in list(MODELS_CONFIG_MAP.items()):
        if not architecture.startswith(PREFIX):
            MODELS_CONFIG_MAP[pair_name(architecture)] = update
    if os.environ.get(PARENT_VARIABLE):
        _end_with_parent()


def _lazy(name: str) -> Any:
    from vllm.model_executor.models.registry import _LazyRegisteredModel

    return _LazyRegisteredModel(MODEL_MODULE, name)


def _end_with_parent() -> None:
    """Let the system kill this process when its parent ends, also by SIGKILL; the user's own process is left alone."""
    started_by_user = os.environ.get(PARENT_VARIABLE) == str(os.getpid())
    if sys.platform == "linux" and not started_by_user:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
