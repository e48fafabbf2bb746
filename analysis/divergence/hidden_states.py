"""Last hidden states of completion tokens, taken from forward passes that are made anyway.

Shape legend: B sequences, T tokens of a sequence, C completion tokens, H hidden size, V vocabulary.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch


@dataclass(frozen=True)
class HeadInputs:
    """The states that a forward pass gave its LM head, and one row of the logits that the model itself made of it.

    Attributes:
        candidates: the states `(B, T, H)` that the head may have been given, the likeliest first; nearly always one.
        sequence: index of a sequence whose last token is not padding, a tensor of no dimensions.
        logits: the model's own logits `(V,)` at that sequence's last position.
        dtype: the coarsest dtype that the logits were computed in.
    """

    candidates: list[torch.Tensor]
    sequence: torch.Tensor
    logits: torch.Tensor
    dtype: torch.dtype

    def last(self, count: int) -> "HeadInputs":
        """The same of the last `count` positions alone, in memory of their own."""
        return replace(self, candidates=[states[:, -count:].clone() for states in self.candidates])

    def on(self, device: torch.device) -> "HeadInputs":
        """The same on a device: of a model on several, the states lie where the layer before the head is."""
        candidates = [states.to(device) for states in self.candidates]
        return replace(self, candidates=candidates, sequence=self.sequence.to(device), logits=self.logits.to(device))

    def row(self, states: torch.Tensor) -> torch.Tensor:
        """The state `(H,)` of `candidates` that belongs to `logits`."""
        return states[self.sequence, -1]


@torch.no_grad()
def head_inputs(
    forward: Any, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, **images: Any
) -> HeadInputs:
    """The states that a model's LM head projects at every position, from one forward pass.

    The head projects the last position of each sequence alone, so that no logits `(B, T, V)` are made, and the rest
    of the model's own code makes its logits of that position. Whatever the model does before its head (a layer, a
    norm, a factor) is therefore in the states.

    Args:
        forward: the callable that makes the forward pass: the model, or the wrapper that gathers its parameters.
        model: the causal LM under it, with or without an adapter.
        input_ids, attention_mask: `(B, T)` int64, on the model's device.
        images: further keyword arguments of the forward pass.

    Raises:
        ValueError: if the model has no LM head, or gives no logits, or its states cannot be told.
    """
    size, length = input_ids.shape
    forward = getattr(forward, "_orig_mod", forward)  # compiled code would not see the recording
    with _recorded_inputs(output_embeddings(model), size, length) as recorded, captured_hidden_states(model) as states:
        output = forward(**forward_arguments(model, input_ids, attention_mask), **images)
    logits = getattr(output, "logits", None)
    if logits is None:
        raise ValueError(f"{class_name(model)} returns no logits, so that it cannot be scored.")
    candidates = [state for state in reversed(recorded or states) if state.shape[0] == size]
    if hasattr(model, "peft_config"):  # virtual tokens of a learned prompt stand before the others
        candidates = [state[:, -length:] for state in candidates]
    candidates = [state for state in candidates if state.shape[1] == length]
    if not candidates:
        raise ValueError(
            f"{class_name(model)} does not give its LM head the states of all {length} positions in one call, so that "
            "its distributions cannot be told from its states; it cannot be scored."
        )
    sequence = attention_mask[:, -1].argmax()
    return HeadInputs(candidates, sequence, logits[sequence, -1].detach(), _coarsest(model, candidates[0]))


def output_embeddings(model: Any) -> Any:
    """The module that turns states into logits.

    Raises:
        ValueError: if the model has none.
    """
    module = model.get_output_embeddings()
    if module is None:
        raise ValueError(f"{class_name(model)} has no LM head (output embeddings).")
    return module


@contextmanager
def _recorded_inputs(head: Any, size: int, length: int) -> Iterator[list[torch.Tensor]]:
    """A list to which every call of the head adds its input `(B, T, H)`; the head projects its last position alone."""
    recorded: list[torch.Tensor] = []
    replaced = head.__dict__.get("forward")  # what a wrapper like accelerate's has put there
    whole = head.forward

    def last_position(*args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else None
        if isinstance(hidden, torch.Tensor) and hidden.ndim == 3 and len(hidden) == size and hidden.shape[1] >= length:
            recorded.append(hidden.detach())
            args = (hidden[:, -1:], *args[1:])
        return whole(*args, **kwargs)

    head.forward = last_position
    try:
        yield recorded
    finally:
        if replaced is None:
            del head.forward
        else:
            head.forward = replaced


def _coarsest(model: Any, states: torch.Tensor) -> torch.dtype:
    """The dtype with the fewest digits among those that make the logits."""
    head = output_embeddings(model)
    kinds = [states.dtype, *(p.dtype for p in head.parameters() if p.is_floating_point() and p.itemsize > 1)]
    kinds += [kind for kind in (getattr(head, "compute_dtype", None),) if isinstance(kind, torch.dtype)]
    if torch.is_autocast_enabled(states.device.type):
        kinds.append(torch.get_autocast_dtype(states.device.type))
    return max(kinds, key=lambda kind: torch.finfo(kind).eps)


def backbone(model: Any) -> Any:
    """The module under the LM head of an unwrapped causal LM, with or without an adapter."""
    return without_adapter(model).base_model


def without_adapter(model: Any) -> Any:
    """The transformers model under a `PeftModel`, else the model itself; peft, slow to import, is not needed."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def class_name(model: Any) -> str:
    """The name of a model's class, without an adapter's, for messages."""
    return type(without_adapter(model)).__name__


def model_name(model: Any) -> str:
    """The folder or hub name that a model was loaded from, else the name of its class, for messages."""
    return getattr(model.config, "name_or_path", "") or class_name(model)


def learned_prompt(model: Any) -> Any:
    """The PEFT config of a learned prompt that an adapter puts before a model's prompts; None where there is none."""
    adapter = getattr(model, "active_peft_config", None)
    return adapter if adapter is not None and adapter.is_prompt_learning else None


@contextmanager
def captured_hidden_states(model: Any) -> Iterator[list[torch.Tensor]]:
    """A list to which every forward pass of the backbone adds its last hidden state `(B, P + C, H)`, detached.

    The state is that after the final norm, which TRL projects by the LM head in training. A model's own forward pass
    may do more before its head, or skip the backbone's module: `head_inputs` is for those.
    """
    states: list[torch.Tensor] = []

    def add(module: Any, args: Any, output: Any) -> None:
        state = getattr(output, "last_hidden_state", None)
        if state is not None:
            states.append(state.detach())

    handle = backbone(model).register_forward_hook(add)
    try:
        yield states
    finally:
        handle.remove()


def completion_states(states: list[torch.Tensor], completion_length: int) -> torch.Tensor:
    """The states `(B, C, H)` from which the C completion tokens were predicted.

    Args:
        states: last hidden states of batches, `(b, P + C, H)` each, B rows together.
        completion_length: C.

    Raises:
        ValueError: if there are no states.
    """
    if not states:
        raise ValueError(
            "No hidden states were captured in the training's forward pass, as when the model is compiled; set "
            "torch_compile=False (and no dynamo backend in the accelerate config), or use divergence k1, k2 or k3."
        )
    return torch.cat([state[:, -completion_length - 1 : -1] for state in states])


def forward_arguments(model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, Any]:
    """Keyword arguments of a forward pass: the tokens, the mask, and no cache where the model takes the word."""
    return {"input_ids": input_ids, "attention_mask": attention_mask, **without_cache(model)}


def without_cache(model: Any) -> dict[str, Any]:
    """Keyword arguments that save a forward pass its cache; none for a model that does not take the word."""
    parameters = inspect.signature(without_adapter(model).forward).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {"use_cache": False} if takes_any or "use_cache" in parameters else {}


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
