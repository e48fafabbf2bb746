"""Last hidden states of completion tokens, taken from forward passes that are made anyway."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel


def backbone(model: Any) -> Any:
    """The module under the LM head of an unwrapped causal LM, with or without an adapter."""
    return (model.get_base_model() if isinstance(model, PeftModel) else model).base_model


@contextmanager
def captured_hidden_states(model: Any) -> Iterator[list[torch.Tensor]]:
    """A list that every forward pass of the backbone adds its last hidden state `(B, P + C, H)` to, detached.

    It is the state after the final norm, which the LM head projects.
    """
    states: list[torch.Tensor] = []
    handle = backbone(model).register_forward_hook(
        lambda module, args, output: states.append(output.last_hidden_state.detach())
    )
    try:
        yield states
    finally:
        handle.remove()


def completion_states(states: list[torch.Tensor], completion_length: int) -> torch.Tensor:
    """The states `(B, C, H)` from which the C completion tokens were predicted, from batches `(b, P + C, H)`."""
    return torch.cat([state[:, -completion_length - 1 : -1] for state in states])


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
