"""Whether the projection of a model's states by its LM head gives the model's own logits: one row of every forward."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from tokenshift.analysis.divergence.hidden_states import HeadInputs, output_embeddings
from tokenshift.analysis.divergence.lm_head import LMHead, head_by_answers, possible_forms
from tokenshift.analysis.divergence.projection import Projection

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""Largest difference of two logits of a row, as a share of the row's largest logit, that is rounding."""


def fitted_head(model: Any, head: LMHead, inputs: HeadInputs) -> tuple[torch.Tensor, LMHead]:
    """The states `(B, T, H)` of a forward pass and the head that turns them into the model's own logits.

    The head's own scale and cap are tried first, then those that the model's config may mean otherwise, and at last
    the head's module as the matrix that its answers show (a head may normalise its weight). Nothing is used that does
    not give the model's own logits of the row.

    Args:
        model: the causal LM, with or without an adapter.
        head: its LM head, whole.
        inputs: what `head_inputs` gave.

    Raises:
        ValueError: if none of these gives the model's own logits.
    """
    tolerance = _tolerance(inputs)
    least, largest = math.inf, 0.0
    for states, candidate, logits in _attempts(model, head, inputs):
        # a model may drop the last rows of its head, which only pad it
        size = min(candidate.vocab_size, len(inputs.logits))
        difference, largest = _difference(logits[:size], inputs.logits[:size])
        if math.isnan(difference) or difference <= tolerance * max(largest, 1e-3):
            return states, candidate if size == candidate.vocab_size else candidate.prefix(size)
        least = min(least, difference)
    name = type(model.get_base_model() if hasattr(model, "get_base_model") else model).__name__
    raise ValueError(
        f"{name} makes its logits in a way that is not known here: at one token its own logits (up to {largest:.3g} "
        f"in size) and the projection of its last state by its LM head differ by up to {least:.3g}, whatever factor "
        "or cap of its config is applied; divergences of it would be wrong, so use a model whose logits are its "
        "output embeddings times a state, a factor and a soft cap."
    )


def _attempts(model: Any, head: LMHead, inputs: HeadInputs) -> Iterator[tuple[torch.Tensor, LMHead, torch.Tensor]]:
    """States, a head, and the logits `(V,)` that it makes of the row's state; later ones take longer."""
    matching = [states for states in inputs.candidates if states.shape[-1] == head.weight.shape[-1]]
    plain = [_row_logits(head, inputs.row(states)) for states in matching]
    for states, logits in zip(matching, plain, strict=True):  # nearly always the only ones
        yield states, head, _with_form(logits, head)
    config = model.config.get_text_config()
    forms = possible_forms(config)
    for states, logits in zip(matching, plain, strict=True):
        for candidate in (replace(head, scale=scale, softcap=softcap) for scale, softcap in forms):
            yield states, candidate, _with_form(logits, candidate)
    for states in inputs.candidates:
        try:
            answered = head_by_answers(output_embeddings(model), config, states.dtype, states.device)
        except (TypeError, ValueError, RuntimeError):  # no map from states to logits
            return
        if states.shape[-1] != answered.weight.shape[-1]:
            continue
        logits = _row_logits(answered, inputs.row(states))
        for candidate in (replace(answered, scale=scale, softcap=softcap) for scale, softcap in forms):
            yield states, candidate, _with_form(logits, candidate)


def _row_logits(head: LMHead, row: torch.Tensor) -> torch.Tensor:
    """Logits `(V,)` of a state `(H,)`, without scale and cap."""
    with torch.autocast(row.device.type, enabled=False):
        return Projection(LMHead(head.weight, head.bias), 1.0, 1, row.device)(row.unsqueeze(0))[0]


def _with_form(logits: torch.Tensor, head: LMHead) -> torch.Tensor:
    logits = logits * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def _difference(logits: torch.Tensor, expected: torch.Tensor) -> tuple[float, float]:
    """The largest difference of two rows of logits and the largest logit, over finite entries.

    The difference is infinite where the rows are not finite at the same tokens, and NaN where none is finite.
    """
    expected = expected.to(logits.device, logits.dtype)
    finite = expected.isfinite()
    if not finite.any():
        return (math.inf if logits.isfinite().any() else math.nan), 0.0
    largest = expected[finite].abs().amax()
    if not torch.equal(finite, logits.isfinite()):
        return math.inf, float(largest)
    difference = (logits[finite] - expected[finite]).abs().amax()
    return float(difference), float(largest)


def _tolerance(inputs: HeadInputs) -> float:
    coarse = inputs.dtype == torch.float32 and inputs.logits.is_cuda and torch.backends.cuda.matmul.allow_tf32
    return TOLERANCE[torch.float16 if coarse else inputs.dtype]
