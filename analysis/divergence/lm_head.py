"""The last projection of a causal LM, which turns a last hidden state into logits, as data."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

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
        return LMHead(self.weight[:size], None if self.bias is None else self.bias[:size], self.scale, self.softcap)


def _logit_scale(config: Any) -> float:
    """The factor on the logits under the names that architectures give it, as TRL 1.16 reads them."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if getattr(config, name, None) is not None:
            return float(getattr(config, name))
    scaling = getattr(config, "logits_scaling", None)
    if scaling is None:
        return 1.0
    return float(scaling) if config.model_type == "hyperclovax" else 1.0 / float(scaling)


@contextmanager
def gathered_head(model: "PreTrainedModel") -> Iterator[LMHead]:
    """The LM head of a model, whole on this rank while the context is open; every rank must enter it.

    Under DeepSpeed ZeRO-3 the weight is gathered for the context; under FSDP2 it is copied whole.

    Args:
        model: an unwrapped causal LM, with or without a PEFT adapter.

    Raises:
        ValueError: if the model has no output embeddings, or a LoRA adapter on them.
    """
    module = model.get_output_embeddings()
    if module is None:
        raise ValueError(f"{type(model).__name__} has no LM head (output embeddings).")
    if hasattr(module, "base_layer"):
        raise ValueError("The LM head has an adapter of its own, which a projection by its weight would leave out.")
    config = model.config.get_text_config()
    weight, bias = module.weight, getattr(module, "bias", None)
    scale, softcap = _logit_scale(config), getattr(config, "final_logit_softcapping", None)
    with _whole_under_zero3(weight, bias):
        yield LMHead(_whole(weight), None if bias is None else _whole(bias), scale, softcap)


def _whole_under_zero3(*parameters: torch.Tensor | None) -> AbstractContextManager[Any]:
    sharded = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not sharded:
        return nullcontext()
    import deepspeed  # an extra

    return deepspeed.zero.GatheredParameters(sharded)


def _whole(parameter: torch.Tensor) -> torch.Tensor:
    from torch.distributed.tensor import DTensor  # slow to import, and only heads of models need it

    detached = parameter.detach()
    return detached.full_tensor() if isinstance(detached, DTensor) else detached
