"""The last projection of a causal LM, as data: what turns a last hidden state into logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
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
    if getattr(config, "logits_scaling", None):  # Granite divides
        return 1.0 / float(config.logits_scaling)
    return float(getattr(config, "logit_scale", None) or 1.0)


@contextmanager
def gathered_head(model: PreTrainedModel) -> Iterator[LMHead]:
    """A model's head, whole on this rank while the context is open; every rank must enter it.

    Under DeepSpeed ZeRO-3 the weight is gathered for the context, under FSDP2 it is copied whole.

    Args:
        model: an unwrapped causal LM.

    Raises:
        ValueError: if the model has no output embeddings.
    """
    module = model.get_output_embeddings()
    if module is None:
        raise ValueError(f"{type(model).__name__} has no LM head (output embeddings).")
    config = model.config.get_text_config()
    module = getattr(module, "base_layer", module)  # of a PEFT layer
    weight, bias = module.weight, getattr(module, "bias", None)
    settings = {"scale": _logit_scale(config), "softcap": getattr(config, "final_logit_softcapping", None)}
    if hasattr(weight, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([p for p in (weight, bias) if p is not None]):
            yield LMHead(weight.detach(), None if bias is None else bias.detach(), **settings)
        return
    whole = [
        None
        if parameter is None
        else parameter.detach().full_tensor()
        if hasattr(parameter, "full_tensor")
        else parameter.detach()
        for parameter in (weight, bias)
    ]
    yield LMHead(whole[0], whole[1], **settings)
