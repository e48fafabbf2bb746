"""Whether two models can be compared token by token: only with the same tokenizer."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def shared_vocabulary(
    base: "PreTrainedTokenizerBase",
    rl: "PreTrainedTokenizerBase",
    base_size: int | None = None,
    rl_size: int | None = None,
) -> tuple[int, str | None]:
    """The number of tokens that mean the same in both heads, and a note where a head is longer than that.

    Embeddings are often padded to a round size, differently in base and fine-tuned model; the rows beyond the shorter
    head are then left out of both.

    Args:
        base, rl: the models' tokenizers.
        base_size, rl_size: rows of their LM heads; where not given, as many as the tokenizer has ids.

    Returns:
        The shared prefix, and what to tell the user (None if the heads are equally long).

    Raises:
        ValueError: if the tokenizers differ, naming the first difference.
    """
    base_vocabulary, rl_vocabulary = base.get_vocab(), rl.get_vocab()
    if base_vocabulary != rl_vocabulary:
        base_tokens = {index: token for token, index in base_vocabulary.items()}
        rl_tokens = {index: token for token, index in rl_vocabulary.items()}
        ids = sorted(base_tokens.keys() | rl_tokens.keys())
        first = next(index for index in ids if base_tokens.get(index) != rl_tokens.get(index))
        raise ValueError(
            f"The two tokenizers differ first at id {first}: {base_tokens.get(first)!r} and {rl_tokens.get(first)!r}; "
            "distributions over different tokens cannot be compared."
        )
    beyond = max(base_vocabulary.values(), default=-1) + 1
    base_size, rl_size = base_size or beyond, rl_size or beyond
    shared = min(base_size, rl_size)
    if beyond > shared:
        if base_size == rl_size:
            advice = "tokens were added to the tokenizer alone. Resize both models (resize_token_embeddings)"
        else:
            shorter, other = ("base", "RL model") if base_size < rl_size else ("RL model", "base")
            advice = f"tokens were added to the {other} alone. Resize the {shorter} too (resize_token_embeddings)"
        raise ValueError(
            f"The tokenizers have ids up to {beyond - 1}, but the shorter LM head has {shared} rows: {advice}, save "
            "the models with the tokenizer, and compare those."
        )
    if base_size == rl_size:
        return shared, None
    return shared, f"The LM heads have {base_size} and {rl_size} rows; the first {shared} are compared."
