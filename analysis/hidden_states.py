"""Last hidden states of completion tokens, taken from forward passes that are made anyway."""

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
