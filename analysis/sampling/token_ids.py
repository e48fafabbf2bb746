"""Prompts as token ids: encoding, padding, end tokens, and the length of a model's context."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

LIMITS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "max_target_positions",
    "model_max_length",
    "n_ctx",
)
"""Names that configs have for the number of positions, in the order in which they are asked for."""

UNLIMITED = frozenset({"bloom", "jamba", "zamba", "nemotron_h", "mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm"})
"""Model types that have no positions to run out of, whatever number their config names."""

OFFSET = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "data2vec-text", "xmod"}
)
"""Model types whose first position is the one after the id of padding."""


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, prompt: Any, chat_template_kwargs: Mapping[str, Any] | None = None
) -> list[int]:
    """Token ids of a prompt, as TRL's GRPO trainer makes them.

    Args:
        tokenizer: the model's tokenizer.
        prompt: text, or a conversation, to which the turn that the model answers in is added.
        chat_template_kwargs: arguments of the chat template, such as `{"enable_thinking": False}`.

    Raises:
        ValueError: for something else than text or a conversation that the chat template can write.
    """
    if isinstance(prompt, str):
        return list(tokenizer(prompt, verbose=False)["input_ids"])  # its length is checked by those who ask
    if not isinstance(prompt, list | tuple) or not all(isinstance(turn, Mapping) for turn in prompt):
        raise ValueError(f"A prompt is {str(prompt)[:60]!r}; prompts are text, or conversations: lists of messages.")
    options: dict[str, Any] = {**(chat_template_kwargs or {}), "add_generation_prompt": True, "return_dict": False}
    turns: list[Any] = list(prompt)
    try:
        ids: Any = tokenizer.apply_chat_template(turns, **options)
        return list(ids)
    except (TemplateError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"The chat template cannot write the prompt {str(prompt)[:60]!r}: {reason}") from error


def end_tokens(tokenizer: PreTrainedTokenizerBase, model: Any) -> set[int]:
    """Ids that end a completion: the model's generation config names, and the tokenizer's."""
    ends = model.generation_config.eos_token_id
    ids = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    return ids - {None}


def context_length(config: Any) -> int | None:
    """Tokens that a model can read, by its config; None where there is no limit, or the config names none."""
    text = config.get_text_config()
    kind = getattr(text, "model_type", None)
    named = (getattr(text, name, None) for name in LIMITS)
    limit = next((value for value in named if type(value) is int and value > 0), None)
    if limit is None or kind in UNLIMITED or getattr(text, "alibi", False) is True:
        return None
    if kind == "granitemoehybrid" and getattr(text, "position_embedding_type", None) != "rope":
        return None
    if kind in OFFSET:  # positions begin after the id of padding
        return limit - (getattr(text, "pad_token_id", None) or 0) - 1
    if kind == "big_bird" and getattr(text, "attention_type", None) == "block_sparse":  # longer, it is not causal
        return min(limit, (5 + 2 * text.num_random_blocks) * text.block_size)
    if (switch := _rotary_switch(text)) is not None:
        return min(limit, switch)
    rope = _rotary_settings(text)
    if rope.get("rope_type", rope.get("type")) == "yarn" and rope.get("factor"):
        # the number of positions may be left as it was when the model is stretched
        return max(limit, int(rope["factor"] * (rope.get("original_max_position_embeddings") or limit)))
    return limit


def _rotary_settings(text: Any) -> Mapping[str, Any]:
    """The settings of rotary positions in a config of text: one mapping, or one per type of layers by its name."""
    return getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}


def _rotary_switch(text: Any) -> int | None:
    """Tokens beyond which rotary factors are others for a whole batch (`longrope`); None where they never change.

    The longest text of a batch decides for all of it, and keys in a cache stay as they were made: a text's
    probabilities would depend on the texts beside it and on the way it is decoded.
    """
    settings = _rotary_settings(text)
    name = "original_max_position_embeddings"
    whole = {**settings, name: getattr(text, name, None) or settings.get(name)}  # the config's own comes first
    switches = [
        part.get(name)
        for part in (whole, *settings.values())
        if isinstance(part, Mapping) and part.get("rope_type", part.get("type")) == "longrope"
    ]
    return min((switch for switch in switches if switch), default=None)


def context_reason(config: Any) -> str:
    """The reason for a model's `context_length`, behind the number in a message; empty where it is plain."""
    switch = _rotary_switch(config.get_text_config())
    if switch is None or switch != context_length(config):
        return ""
    return (
        " (its rotary factors, rope_type 'longrope', change beyond that many by the longest text of a batch, which is "
        "not supported)"
    )


def check_context(config: Any, prompt_lengths: Sequence[int], new_tokens: int, *, model: str, setting: str) -> None:
    """Refuse responses that a model has no positions for.

    Args:
        config: the model's config.
        prompt_lengths: tokens of the prompts; empty while none is known.
        new_tokens: tokens that a response may have.
        model: the setting and the name of the model, for the message.
        setting: the setting of `new_tokens`, for the message.

    Raises:
        ValueError: if the longest prompt and a response have more tokens than the model reads.
    """
    limit, longest = context_length(config), max(prompt_lengths, default=1)
    prompt = f"the longest prompt has {longest}" if prompt_lengths else "a prompt has at least 1"
    if limit is not None and longest + new_tokens > limit:
        reason = context_reason(config)
        raise ValueError(
            f"{model} reads {limit} tokens{reason}; {prompt}, and with {setting}={new_tokens} a response could end at "
            f"{longest + new_tokens}: "
            + (f"lower {setting} to {limit - longest}" if longest < limit else "leave the prompt out")
            + ("." if reason else ", or lengthen the model (docs/how-to/longer-contexts.md).")
        )


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


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    """The position `(B, T)` of each token among those that an attention mask `(B, T)` leaves; 0 at padding."""
    return (mask.long().cumsum(dim=-1) - 1).clamp_min(0)
