"""Whether the projection of a model's states by its LM head gives the model's own logits: one row of every forward."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from tokenshift.analysis.divergence.hidden_states import HeadInputs, class_name, output_embeddings
from tokenshift.analysis.divergence.lm_head import LMHead, head_by_answers, possible_forms
from tokenshift.analysis.divergence.projection import Projection, multiplies_in_tf32

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""Largest difference of a logit, as a share of its distance from the row's largest, that is rounding."""

FAR = 100.0
"""Distance below the row's largest logit at which a logit says nothing of the spread, such as a masked token's."""

ROUNDINGS = 4.0
"""Units of rounding, at the size of the row's largest logit, by which a logit may differ."""


def fitted_head(model: Any, head: LMHead, inputs: HeadInputs) -> tuple[torch.Tensor, LMHead]:
    """The states `(B, T, H)` of a forward pass and the head that turns them into the model's own logits.

    Both are on the head's device.

    The head's own scale and cap are tried first, then those that the model's config may mean otherwise, and at last
    the head's module as the matrix that its answers show (a head may normalise its weight). Nothing is used that does
    not give the model's own logits of the row, up to a constant on all of them, which changes no probability.

    Args:
        model: the causal LM, with or without an adapter.
        head: its LM head, whole.
        inputs: what `head_inputs` gave.

    Raises:
        ValueError: if the model's own logits are not finite, or if none of these gives them.
    """
    check_finite(model, inputs.logits)
    inputs = inputs.on(head.weight.device)
    smallest = math.inf
    for states, candidate, logits in _attempts(model, head, inputs):
        # a model may drop the last rows of its head, which only pad it
        size = min(candidate.vocab_size, len(inputs.logits))
        difference, is_rounding = _difference(logits[:size], inputs.logits[:size], inputs.dtype)
        if is_rounding:
            return states, candidate if size == candidate.vocab_size else candidate.prefix(size)
        smallest = min(smallest, difference)
    largest = float(inputs.logits[inputs.logits.isfinite()].abs().amax())
    raise ValueError(
        f"{class_name(model)} makes its logits in a way that is not known here: at one token its own logits (up to "
        f"{largest:.3g} in size) and the projection of its last state by its LM head differ by up to {smallest:.3g}, "
        "whatever factor or cap of its config is applied; divergences of it would be wrong, so use a model whose "
        "logits are its output embeddings times a state, a factor and a soft cap."
    )


def check_finite(model: Any, logits: torch.Tensor) -> None:
    """Refuse logits that are no distributions; minus infinity may mask tokens.

    Args:
        model: the causal LM whose logits they are, with or without an adapter.
        logits: its own, `(..., V)`.

    Raises:
        ValueError: if a logit is NaN or infinite, or all of a row are minus infinity.
    """
    if logits.isnan().any() or logits.isposinf().any() or not logits.isfinite().any(dim=-1).all():
        raise ValueError(
            f"The logits of {class_name(model)} are not finite, so that it has no probabilities: usually its weights "
            "are broken, or half precision overflows; load it with dtype float32 or bfloat16, and check the weights "
            "if that does not help."
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


def _difference(logits: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> tuple[float, bool]:
    """The distance of two rows of logits `(V,)`, and whether it is rounding.

    Logits count from that of the most probable token on: a constant on all of them changes no probability, and so
    must not lend its size to what is allowed. A logit far below the largest may differ by more than one close to it.

    Args:
        logits: a projection's.
        expected: the model's own, of which at least one is finite.
        dtype: the coarsest dtype that the model's own were computed in.

    Returns:
        The largest difference over finite entries, infinite where the rows are not finite at the same tokens; and
        whether every difference is rounding.
    """
    expected = expected.to(logits.device)
    finite = expected.isfinite()
    if not torch.equal(finite, logits.isfinite()):
        return math.inf, False
    own, projected = expected[finite].double(), logits[finite].double()
    top = own.argmax()
    depth = own[top] - own  # >= 0
    differences = ((projected - projected[top]) - (own - own[top])).abs()
    spread = depth[depth <= FAR].median().clamp_min(1e-3)
    coarse = dtype == torch.float32 and logits.is_cuda and multiplies_in_tf32()
    own_dtype = torch.float16 if coarse else dtype
    unit = torch.maximum(
        own[top].abs() * torch.finfo(own_dtype).eps, projected[top].abs() * torch.finfo(torch.float32).eps
    )
    allowed = torch.maximum(TOLERANCE[own_dtype] * depth.clamp_min(spread), ROUNDINGS * unit)
    return float(differences.max()), bool((differences <= allowed).all())
