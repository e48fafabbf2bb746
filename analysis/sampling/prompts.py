"""Problems as a model reads them, and the room that they leave for a response."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase

from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.requests import Prompt
from tokenshift.analysis.sampling.token_ids import context_length, context_reason, encode_prompt

if TYPE_CHECKING:
    from datasets import Dataset


def encode_problems(
    problems: "Dataset | Sequence[Any]",
    tokenizer: PreTrainedTokenizerBase,
    *,
    name: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> list[Prompt]:
    """Problems as a model reads them; row i is problem i.

    Args:
        problems: a `datasets.Dataset` with the column `prompt`; or a list whose items are texts, conversations in
            the chat format, or `Prompt`s, which stay as they are.
        tokenizer: the model's tokenizer.
        name: the model's name, for messages; by default what the tokenizer was loaded from.
        chat_template_kwargs: arguments of the chat template; those of a training give the prompts of the training.

    Raises:
        ValueError: if there is no problem or no column `prompt`, for conversations without a chat template, for an
            empty prompt, or for one that the tokenizer ends with its end token.
    """
    columns = getattr(problems, "column_names", None)
    if columns is not None and "prompt" not in columns:
        raise ValueError(f"The problems have no column 'prompt'; their columns are {', '.join(columns)}.")
    if not len(problems):
        raise ValueError("There are no problems: the list or Dataset is empty.")
    prompts = []
    for row, prompt in enumerate(problems if columns is None else problems["prompt"]):  # type: ignore[call-overload]
        if not isinstance(prompt, Prompt):
            if not isinstance(prompt, str | list | tuple):
                raise ValueError(
                    f"The prompt of row {row} is a {type(prompt).__name__} ({str(prompt)[:60]}); prompts are text or "
                    "conversations."
                )
            if not isinstance(prompt, str) and tokenizer.chat_template is None:
                name = name or tokenizer.name_or_path
                raise ValueError(f"The prompts are conversations, but the tokenizer of {name!r} has no chat template.")
            options = dict(chat_template_kwargs or {})
            text: Any = prompt
            if not isinstance(prompt, str):
                turns: list[Any] = list(prompt)
                text = tokenizer.apply_chat_template(turns, tokenize=False, **options)
            check_ending = isinstance(prompt, str) and not prompt.endswith(str(tokenizer.eos_token))
            prompt = Prompt(row, str(text), encode_prompt(tokenizer, prompt, options))
            if check_ending and len(prompt.ids) > 1 and prompt.ids[-1] == tokenizer.eos_token_id:
                raise ValueError(
                    f"The tokenizer of {name or tokenizer.name_or_path!r} ends the prompt of row {row} with its end "
                    "token, after which a response would begin: set add_eos_token to false in its "
                    "tokenizer_config.json, or take the end token out of the post_processor in its tokenizer.json."
                )
        if not prompt.ids:
            raise ValueError(f"The prompt of row {row} is empty; give it a text.")
        prompts.append(prompt)
    return prompts


def room_after(
    prompts: Sequence[Prompt], config: Any, max_new_tokens: int | None, *, name: str | None = None
) -> int | None:
    """Tokens that a model can read after the longest prompt; None where the model's config names no limit.

    Args:
        prompts: at least one.
        config: the model's config.
        max_new_tokens: tokens that a response may have; None for any number.
        name: the model's name, for messages.

    Raises:
        ValueError: if the room is less than `max_new_tokens`, or less than one token.
    """
    context = context_length(config)
    if context is None:
        return None
    longest = max(prompts, key=lambda prompt: len(prompt.ids))
    left = context - len(longest.ids)
    if left < (max_new_tokens or 1):
        raise ValueError(
            f"The prompt of row {longest.problem_id} has {len(longest.ids)} tokens, which leaves {left} of the "
            f"{context} that the model {'' if name is None else f'{name!r} '}reads{context_reason(config)}; "
            + ("leave it out." if left < 1 else f"lower max_new_tokens={max_new_tokens}.")
        )
    return left


def fitting_sampling(sampling: Sampling | None, prompts: Sequence[Prompt], models: Sequence[Any]) -> Sampling:
    """The given settings if responses fit into the models' contexts; by default, settings with which they do.

    Args:
        sampling: settings; None for `Sampling()` with as many new tokens, at most its own, as every model can read.
        prompts: at least one.
        models: causal LMs.

    Raises:
        ValueError: if a prompt and a response would not fit.
    """
    wanted = None if sampling is None else sampling.max_new_tokens
    rooms = [room_after(prompts, model.config, wanted) for model in models]
    if sampling is not None:
        return sampling
    limits = [Sampling.max_new_tokens, *(room for room in rooms if room is not None)]
    return Sampling(max_new_tokens=min(limits))
