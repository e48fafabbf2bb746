"""Last hidden states of completion tokens, taken from forward passes that are made anyway."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def backbone(model: Any) -> Any:
    """The module under the LM head of an unwrapped causal LM, with or without an adapter."""
    return _without_adapter(model).base_model


def _without_adapter(model: Any) -> Any:
    """The transformers model under a `PeftModel`, else the model itself; peft, slow to import, is not needed."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def captured_hidden_states(model: Any) -> Iterator[list[torch.Tensor]]:
    """A list to which every forward pass of the backbone adds its last hidden state `(B, P + C, H)`, detached.

    The state is that after the final norm, which the LM head projects.
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
    """The states `(B, C, H)` from which the C completion tokens were predicted.

    Args:
        states: last hidden states of batches, `(b, P + C, H)` each, B rows together.
        completion_length: C.
    """
    return torch.cat([state[:, -completion_length - 1 : -1] for state in states])


def forward_options(model: Any) -> dict[str, Any]:
    """Keyword arguments that save a forward pass its cache and, where the model allows it, all logits but one row."""
    keeps_few_logits = "logits_to_keep" in inspect.signature(_without_adapter(model).forward).parameters
    return {"use_cache": False, **({"logits_to_keep": 1} if keeps_few_logits else {})}


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Put every module in eval mode, and afterwards back in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
