"""Sizes of a model that decide what a run needs, from its config alone: no weight is loaded or allocated.

The model is built of fake tensors, which have shapes and no memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, PreTrainedConfig


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of a causal LM.

    Attributes:
        parameters: of the whole model; tied ones count once.
        itemsize: bytes of a parameter.
        multiplied: parameters that a token is multiplied by: all but embeddings that are not the LM head too.
        attention_width: numbers of all heads' queries of a token.
        layers, hidden, vocabulary: sizes of the decoder and of the LM head.
        cache_per_token: bytes of keys and values per token, over all layers.
    """

    parameters: int
    itemsize: int
    multiplied: int
    attention_width: int
    layers: int
    hidden: int
    vocabulary: int
    cache_per_token: int

    @property
    def head(self) -> int:
        """Numbers in the LM head's weight."""
        return self.vocabulary * self.hidden

    @property
    def weights(self) -> int:
        """Bytes of the parameters."""
        return self.parameters * self.itemsize

    def forward_flops(self, tokens: int) -> float:
        """Floating-point operations per token of a forward pass over a sequence, with the LM head at every token.

        Two per multiplied parameter, and attention's two products over the tokens before, half of the sequence on
        average.
        """
        return 2.0 * self.multiplied + 2.0 * self.attention_width * self.layers * tokens


def fake_mode() -> Any:
    """A context in which tensors are fake: they have shapes and no memory."""
    return FakeTensorMode(allow_non_fake_inputs=True)


@contextmanager
def told_of(config: PreTrainedConfig) -> Iterator[None]:
    """Tell in one line what a model's code raises for fake tensors.

    Raises:
        ValueError: for whatever is raised inside.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"The memory of a {type(config).__name__.removesuffix('Config')} model cannot be told from its config: "
            f"{type(error).__name__}: {reason}"
        ) from error


def built(config: PreTrainedConfig, dtype: torch.dtype, **options: Any) -> Any:
    """The causal LM of a config, with parameters of a dtype; in `fake_mode` it takes no memory."""
    return AutoModelForCausalLM.from_config(config, dtype=dtype, **options)


def sizes_of(model: Any) -> ModelSizes:
    """The sizes of a model, fake or not, all of whose parameters have one dtype."""
    text = model.config.get_text_config()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    head, embeddings = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    return ModelSizes(
        parameters=parameters,
        itemsize=head.dtype.itemsize,
        multiplied=parameters - (0 if head is embeddings else embeddings.numel()),
        attention_width=_head_width(text) * getattr(text, "num_attention_heads", 1),
        layers=text.num_hidden_layers,
        hidden=head.shape[1],
        vocabulary=head.shape[0],
        cache_per_token=_cache_per_token(text, head.dtype),
    )


def trial_inputs(tokens: int, rows: int = 1) -> dict[str, Any]:
    """Arguments of a forward pass over sequences of so many tokens, with the mask that is made of a padded batch's."""
    return {
        "input_ids": torch.zeros(rows, tokens, dtype=torch.long),
        "attention_mask": torch.ones(rows, 1, tokens, tokens, dtype=torch.bool),
        "use_cache": False,
    }


def _head_width(config: Any) -> int:
    """Numbers of one attention head's query."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // getattr(config, "num_attention_heads", 1))


def _cache_per_token(config: Any, dtype: torch.dtype) -> int:
    """Bytes of keys and values per token, over all layers."""
    heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", 1)
    return 2 * config.num_hidden_layers * heads * _head_width(config) * dtype.itemsize
