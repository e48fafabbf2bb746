"""Both models' statistics along trajectories, from one forward pass of each."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tokenshift.analysis.hidden_states import captured_hidden_states
from tokenshift.analysis.trajectories import TrajectoryBatch


@torch.no_grad()
def predicting_states(forward: Any, model: Any, batch: TrajectoryBatch) -> torch.Tensor:
    """Last hidden states `(N, H)` from which the completion tokens of a batch are predicted, in order.

    Args:
        forward: what is called: the model, or the wrapper that gathers its parameters.
        model: the causal LM under it.
        batch: on the model's device.
    """
    with captured_hidden_states(model) as captured:
        forward(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **forward_options(model))
    return captured[0][batch.predicts]


def forward_options(model: Any) -> dict[str, Any]:
    """Keyword arguments that spare a forward pass its cache and, where the model can, all logits but a row."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    spares = "logits_to_keep" in inspect.signature(inner.forward).parameters
    return {"use_cache": False, **({"logits_to_keep": 1} if spares else {})}


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Every module in eval mode, and back to the mode that each was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
