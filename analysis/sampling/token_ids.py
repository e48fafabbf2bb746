"""Prompts as token ids: encoding, padding, end tokens, and the length of a model's context."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Any) -> list[int]:
    """Token ids of a prompt: text, or a conversation, to which the turn that the model answers in is added."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    return list(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False))


def end_tokens(tokenizer: PreTrainedTokenizerBase, model: Any) -> set[int]:
    """Ids that end a completion: the model's generation config names, and the tokenizer's."""
    ends = model.generation_config.eos_token_id
    ids = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    return ids - {None}


def context_length(config: Any) -> int | None:
    """Tokens that a model can read, by its config; None where the config names no limit."""
    length: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return length


def until_end(ids: list[int], ends: set[int]) -> list[int]:
    """A row of token ids up to its first end token, that one included."""
    first = next((position for position, token in enumerate(ids) if token in ends), None)
    return ids if first is None else ids[: first + 1]


def padded_left(rows: Sequence[list[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask `(B, T)` int64 of rows side by side."""
    length = max(map(len, rows))
    ids = torch.tensor([[pad] * (length - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask
