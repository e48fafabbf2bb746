"""Sizes of a model that decide what its training needs, from its config alone: no weight is loaded or allocated.

Of the model of fake tensors, what autograd would keep of three short forward passes tells the activations of any
architecture.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from tokenshift.analysis.divergence.hidden_states import backbone
from tokenshift.analysis.plan.model_sizes import ModelSizes, built, fake_mode, sizes_of, told_of, trial_inputs

TRIED_LENGTHS = (64, 128, 192)
"""Tokens of the forward passes, in equal steps."""


@dataclass(frozen=True)
class ModelShape(ModelSizes):
    """Sizes of a causal LM that is trained.

    Attributes:
        trained: parameters that are trained: all, or an adapter's.
        kept_per_token: bytes of activations per token that the backward pass needs, over all layers.
        kept_per_pair: the same per pair of tokens of a sequence: attention's scores, or its masks.
        kept: bytes beside them that do not depend on the number of tokens, such as weights cast by autocast.
        state_itemsize: bytes of a number of the hidden state between layers.
    """

    trained: int
    kept_per_token: int
    kept_per_pair: int
    kept: int
    state_itemsize: int

    def activations(self, rows: int, length: int, *, checkpointing: bool) -> int:
        """Bytes that a forward pass keeps for the backward pass.

        With gradient checkpointing these are the states between layers, and all of one layer at a time.

        Args:
            rows: sequences.
            length: their tokens.
            checkpointing: whether it is on.
        """
        kept = rows * (length * self.kept_per_token + length**2 * self.kept_per_pair)
        if not checkpointing:
            return self.kept + kept
        between = rows * length * self.layers * self.hidden * self.state_itemsize
        return self.kept + between + kept // self.layers


def model_shape(
    config: PreTrainedConfig,
    dtype: torch.dtype = torch.float32,
    *,
    autocast: torch.dtype | None = None,
    peft_config: Any = None,
) -> ModelShape:
    """Sizes of the model that a config describes.

    Args:
        config: of a causal LM.
        dtype: of its parameters.
        autocast: what a training multiplies in, if it uses autocast.
        peft_config: of the adapter that is trained, if one is. Activations are taken to be those without it.

    Raises:
        ValueError: if no model can be built of the config, or the model cannot be followed without weights.
    """
    with told_of(config):
        with fake_mode():
            model = built(config, dtype).train()
            sizes = sizes_of(model)
            kept, per_token, per_pair = _fitted([_kept_bytes(model, tokens, autocast) for tokens in TRIED_LENGTHS])
        trained = sizes.parameters if peft_config is None else _trained(config, peft_config)
    return ModelShape(
        **vars(sizes),
        trained=trained,
        kept_per_token=per_token,
        kept_per_pair=per_pair,
        kept=kept,
        state_itemsize=dtype.itemsize,
    )


def _trained(config: PreTrainedConfig, peft_config: Any) -> int:
    """Trained parameters of an adapter on the model of a config; peft converts modules, which fake tensors forbid."""
    from peft import get_peft_model  # slow to import, and only adapters need it

    with torch.device("meta"):
        model: Any = get_peft_model(AutoModelForCausalLM.from_config(config), peft_config)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _kept_bytes(model: Any, tokens: int, autocast: torch.dtype | None) -> int:
    """Bytes beside the parameters that autograd keeps of a forward pass over one sequence of this many tokens."""
    known = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    with _kept_storages(known) as storages, torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        backbone(model)(**trial_inputs(tokens))
    return sum(storage.nbytes() for storage in storages.values())


def _fitted(sizes: list[int]) -> tuple[int, int, int]:
    """The constant, the factor of the length and that of its square by which sizes depend on `TRIED_LENGTHS`."""
    first, second, third = sizes
    step, start = TRIED_LENGTHS[1] - TRIED_LENGTHS[0], TRIED_LENGTHS[0]
    square = (third - 2 * second + first) // (2 * step**2)
    linear = (second - first) // step - square * (2 * start + step)
    return max(0, first - linear * start - square * start**2), linear, square


@contextmanager
def _kept_storages(known: set[int]) -> Iterator[dict[int, Any]]:
    """The storages that autograd keeps inside, by their address; those that are `known` are left out."""
    storages: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            storages[storage._cdata] = storage  # held, so that no other one gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield storages
