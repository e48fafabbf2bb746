"""The last projection of a causal LM, which turns the states given to its LM head into logits, as data."""

import math
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from tokenshift.analysis.divergence.hidden_states import output_embeddings
from tokenshift.analysis.divergence.placement import weights_in_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LMHead:
    """Logits are `softcap(scale * (hidden @ weight.T + bias))`, with `softcap(x) = c * tanh(x / c)`.

    Attributes:
        weight: `(V, H)`, tied to the embeddings or not.
        bias: `(V,)` or None.
        scale: factor on the logits (Cohere's `logit_scale`, one over Granite's `logits_scaling`).
        softcap: final soft-capping c (Gemma), or None.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    @property
    def vocab_size(self) -> int:
        return self.weight.shape[0]

    def prefix(self, size: int) -> "LMHead":
        """The head of the first `size` tokens alone."""
        return replace(self, weight=self.weight[:size], bias=None if self.bias is None else self.bias[:size])

    def to(self, dtype: torch.dtype) -> "LMHead":
        """The head with parameters of another dtype."""
        return replace(self, weight=self.weight.to(dtype), bias=None if self.bias is None else self.bias.to(dtype))

    def on(self, device: torch.device) -> "LMHead":
        """The head on a device; a copy to an accelerator is not waited for."""
        waits = device.type == "cpu"  # what comes from an accelerator would be read before it is there
        bias = None if self.bias is None else self.bias.to(device, non_blocking=not waits)
        return replace(self, weight=self.weight.to(device, non_blocking=not waits), bias=bias)


SCALES = ("logit_scale", "output_multiplier", "lm_head_multiplier")
"""Names that configurations give a factor on the logits, in the order in which TRL 1.16 reads them."""

SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Names that configurations give the cap of the logits."""

_ABOUT_LOGITS = re.compile("logit|lm_head|output|vocab")
_A_SCALE = re.compile("scal|mult|factor|temperature|divisor")


def _number(value: Any) -> float | None:
    """The value as a float, if it is a finite number."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def _logit_scale(config: Any) -> float:
    for name in SCALES:
        if (scale := _number(getattr(config, name, None))) is not None:
            return scale
    scaling = _number(getattr(config, "logits_scaling", None))
    if not scaling:
        return 1.0
    return scaling if config.model_type == "hyperclovax" else 1.0 / scaling


def _softcap(config: Any) -> float | None:
    return next((cap for name in SOFTCAPS if (cap := _number(getattr(config, name, None)))), None)


def possible_forms(config: Any) -> list[tuple[float, float | None]]:
    """Scales and soft caps that a model may put on its logits by its text config, the likeliest first.

    A number in a config may be ignored by its model, or stand under a name that is not known here: which form is
    right is for the model's own logits to say.
    """
    numbers = {name: _number(value) for name, value in config.to_dict().items() if _ABOUT_LOGITS.search(name)}
    about_logits = {name: value for name, value in numbers.items() if value}
    named = [value for name, value in about_logits.items() if _A_SCALE.search(name)]
    caps = [value for name, value in about_logits.items() if "cap" in name]
    scales = [_logit_scale(config), 1.0, *(number for value in named for number in (value, 1.0 / value))]
    forms = [(scale, cap) for cap in (_softcap(config), None, *caps) for scale in scales]
    return list(dict.fromkeys(forms))


@contextmanager
def gathered_head(model: "PreTrainedModel") -> Iterator[LMHead]:
    """The LM head of a model, whole on this rank while the context is open; every rank must enter it.

    Under DeepSpeed ZeRO-3 the weight is gathered for the context; under FSDP2 it is copied whole. A head of quantized
    weights is dequantized. The scale and the cap are those that the config names: `fitted_head` compares them with the
    model's own logits.

    Args:
        model: an unwrapped causal LM, with or without a PEFT adapter.

    Raises:
        ValueError: if the model has no output embeddings, or a LoRA adapter on them, or weights that cannot be read.
    """
    with whole_heads(head_of(model)) as (head,):
        yield head


def head_of(model: "PreTrainedModel") -> LMHead:
    """The LM head of a model, its parameters as they are on this rank: `whole_heads` makes them whole.

    A head that waits in host memory or on a disk, as of a model that was loaded with a `device_map`, is read to the
    device that it runs on.

    Raises:
        ValueError: as for `gathered_head`.
    """
    module = output_embeddings(model)
    if hasattr(module, "base_layer"):
        raise ValueError(
            "The LM head has an adapter of its own, which a projection by its weight would leave out; leave lm_head "
            "out of target_modules, or train it whole (modules_to_save=['lm_head'])."
        )
    _check_not_8bit(model, module)
    with weights_in_memory(module):
        weight: Any = getattr(module, "weight", None)
        plain = _is_plain(weight)
        head = LMHead(weight, getattr(module, "bias", None)) if plain else _quantized_head(model, module)
    config = model.config.get_text_config()
    return replace(head, scale=_logit_scale(config), softcap=_softcap(config))


@contextmanager
def whole_heads(*heads: LMHead) -> Iterator[list[LMHead]]:
    """Heads of `head_of`, whole on this rank while the context is open; every rank must enter it.

    A parameter that several of them share is gathered once, since DeepSpeed refuses to gather one twice.
    """
    parameters = [parameter for head in heads for parameter in (head.weight, head.bias) if parameter is not None]
    with _whole_under_zero3({id(parameter): parameter for parameter in parameters}):
        whole = {id(parameter): _whole(parameter) for parameter in parameters}
        yield [
            replace(head, weight=whole[id(head.weight)], bias=None if head.bias is None else whole[id(head.bias)])
            for head in heads
        ]


def _whole_under_zero3(parameters: dict[int, torch.Tensor]) -> AbstractContextManager[Any]:
    sharded = [parameter for parameter in parameters.values() if hasattr(parameter, "ds_id")]
    if not sharded:
        return nullcontext()
    import deepspeed  # an extra

    return deepspeed.zero.GatheredParameters(sharded)


def _whole(parameter: torch.Tensor) -> torch.Tensor:
    from torch.distributed.tensor import DTensor  # slow to import, and only heads of models need it

    detached = parameter.detach()
    return detached.full_tensor() if isinstance(detached, DTensor) else detached


# Heads that are more than a matrix of floats -------------------------------------------------------------------------

UNIT_VECTORS = 256
"""Unit vectors that a head projects at a time, where only its answers tell its weights."""

_dequantized: "WeakKeyDictionary[torch.nn.Module, LMHead]" = WeakKeyDictionary()
"""Quantized heads that were read already: nothing trains their weights."""


def _is_plain(weight: Any) -> bool:
    """Whether a weight is a matrix of floats, sharded or not, and not packed numbers under another name."""
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point() or weight.itemsize < 2:
        return False
    if type(weight) in (torch.Tensor, torch.nn.Parameter):
        return True
    from torch.distributed.tensor import DTensor  # slow to import

    return isinstance(weight, DTensor)


def _check_not_8bit(model: Any, module: torch.nn.Module) -> None:
    if "8bit" in type(module).__name__ or type(getattr(module, "weight", None)).__name__ == "Int8Params":
        raise ValueError(
            f"The LM head of {type(model).__name__} is a {type(module).__name__}, which rounds its input to 8 bits "
            "too, so that no matrix gives its logits; load the model with llm_int8_skip_modules=['lm_head'], or in "
            "4 bits."
        )


def _quantized_head(model: Any, module: torch.nn.Module) -> LMHead:
    head = _dequantized.get(module)
    device = next((tensor.device for tensor in (*module.parameters(), *module.buffers())), model.device)
    if head is None or head.weight.device != device:
        head = _dequantized[module] = head_by_answers(module, model.config.get_text_config(), model.dtype, device)
    return head


@torch.no_grad()
def head_by_answers(module: Any, config: Any, dtype: torch.dtype, device: torch.device) -> LMHead:
    """The head as a matrix, from what a linear module makes of each unit vector.

    Args:
        module: maps `(n, H)` to `(n, V)`.
        config: the model's text config.
        dtype, device: of the unit vectors.

    Raises:
        ValueError: if the number of columns of its input cannot be told.
    """
    names = ("in_features", "infeatures", "input_size")
    width = next((int(size) for name in names if (size := getattr(module, name, None))), None)
    width = width or getattr(config, "word_embed_proj_dim", None) or config.hidden_size
    unit = torch.eye(int(width), dtype=dtype, device=device)
    nothing = module(unit[:1] * 0).float()  # (1, V), the bias
    weight = torch.cat([(module(part).float() - nothing).to(dtype) for part in unit.split(UNIT_VECTORS)]).t()
    return LMHead(weight.contiguous(), nothing[0].to(dtype) if nothing.any() else None)
