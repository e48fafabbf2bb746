"""Cross-sampling: one policy decodes, another intervenes at chosen positions (arXiv 2603.22446, section 3).

Two engines give the same output: `lockstep`, which reads as the definition does, and `draft`, which is fast.
"""

import functools
import warnings
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.cross_sampling import draft_and_verify, lockstep
from tokenshift.analysis.cross_sampling.cached_policy import (
    CachedPolicy,
    UncachedPolicy,
    decodes_rightly,
    masks_slots,
)
from tokenshift.analysis.cross_sampling.intervention import CrossResponse, Intervention, Pair
from tokenshift.analysis.sampling.folder_settings import report_unused_settings
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.plain_reading import check_causal
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.token_ids import context_length, context_reason

ENGINES = {"draft": draft_and_verify.decode, "lockstep": lockstep.decode}
"""The engines that can be asked for."""

FALLBACKS = {
    "lockstep by length": functools.partial(lockstep.decode_by_length, policy_class=CachedPolicy),
    "lockstep without cache": functools.partial(lockstep.decode_by_length, policy_class=UncachedPolicy),
}
"""Engines that run where the models' states do not allow what was asked for."""


def cross_sample(
    primary: Any,
    intervention: Any,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    *,
    plan: Intervention | None = None,
    sampling: Sampling | None = None,
    engine: str = "draft",
    batch_size: int | None = None,
) -> list[CrossResponse]:
    """A response to each request, decoded side by side.

    A response depends on its row, the seed and the settings, not on the batch or the engine, except where two
    candidates tie within the rounding of logits.

    Args:
        primary, intervention: causal LMs of one tokenizer, on one device or several.
        tokenizer: the tokenizer of both models.
        requests: the prompts, each with the row that its random numbers belong to.
        plan: where to intervene, by default where JS > 0.1.
        sampling: settings of both policies.
        engine: `draft` or `lockstep`; what runs is the `engine_for` these models.
        batch_size: responses at once; all when None.

    Raises:
        ValueError: for an unknown engine, models without an end token, one that is not causal, or a prompt that leaves
            no room.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1.")
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r} is not known; choose one of {', '.join(ENGINES)}.")
    sampling, plan = sampling or Sampling(), plan or Intervention()
    pair = Pair(primary, intervention, tokenizer)
    if not requests:
        return []
    check_requests(pair, requests, sampling)
    engine = engine_for(primary, intervention, engine)
    warn_if_slow(primary, intervention, engine)
    decode = (ENGINES | FALLBACKS)[engine]
    return decode(pair, requests, sampling, plan, batch_size or len(requests))


def warn_if_slow(primary: Any, intervention: Any, engine: str) -> None:
    """Warn of an engine that runs because the models' states do not allow another."""
    if engine in FALLBACKS:
        warnings.warn(
            f"The states of {type(primary).__name__} and {type(intervention).__name__} do not allow batches with "
            f"padding: the engine is {engine!r}, which is slower.",
            stacklevel=3,
        )


def check_requests(pair: Pair, requests: Sequence[Request], sampling: Sampling) -> None:
    """Look at prompts before anything is decoded.

    Args:
        pair: the two policies.
        requests: the prompts.
        sampling: settings of both policies.

    Raises:
        ValueError: for a prompt that is empty, or leaves no room for a response.
    """
    if not all(request.prompt_ids for request in requests):
        raise ValueError("A prompt is empty; give it a start token.")
    for model in (pair.primary, pair.intervention):
        context = context_length(model.config)
        longest = max(len(request.prompt_ids) for request in requests)
        if context is not None and longest + sampling.max_new_tokens > context:
            raise ValueError(
                f"A prompt has {longest} tokens and a response may have max_new_tokens={sampling.max_new_tokens}, but "
                f"the model reads {context}{context_reason(model.config)}: lower max_new_tokens, or leave the prompt "
                "out."
            )
    for model in (pair.primary, pair.intervention):
        report_unused_settings(model)


def engine_for(primary: Any, intervention: Any, engine: str = "draft") -> str:
    """The engine that decodes with two models, by what their caches allow.

    Args:
        primary, intervention: causal LMs in eval mode, on one device or several.
        engine: the engine that is asked for, `draft` or `lockstep`.

    Returns:
        `draft` if it is asked for and slots of both caches may be masked; else `lockstep` if both models can decode
        with padding; else `lockstep by length`, which decodes prompts of one length at a time, if both can decode with
        a cache; else `lockstep without cache`, which reads prefixes from their first token on for every token.

    Raises:
        ValueError: for a model that is not causal.
    """
    models = (primary, intervention)
    for model in models:
        check_causal(model)
    if engine == "draft" and all(masks_slots(model) for model in models):
        return "draft"
    for name, padded in (("lockstep", True), ("lockstep by length", False)):
        if all(decodes_rightly(model, padded=padded) for model in models):
            return name
    return "lockstep without cache"
