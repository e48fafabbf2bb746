"""Whether the policy has positions for a prompt and a completion of the longest length that may be sampled."""

from collections.abc import Sequence
from typing import Any

from accelerate.logging import get_logger

from tokenshift.analysis.divergence.hidden_states import learned_prompt, model_name
from tokenshift.analysis.sampling.token_ids import check_context, context_length, context_reason

logger = get_logger(__name__)


def check_policy_context(
    trainer: Any,
    prompt_lengths: Sequence[int] = (),
    new_tokens: int | None = None,
    *,
    setting: str = "max_completion_length",
) -> None:
    """Refuse completions that would end beyond the policy's last position.

    Args:
        trainer: a trainer of TRL's; without `new_tokens` a [`~trl.GRPOTrainer`].
        prompt_lengths: tokens of prompts; empty while none is known.
        new_tokens: tokens that a completion may have; the trainer's `max_completion_length` when None.
        setting: the setting of these tokens, for the message.

    Raises:
        ValueError: with the positions, the longest prompt and the setting.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    learned = _learned_tokens(model)
    check_context(
        model.config,
        [length + learned for length in prompt_lengths],
        (trainer.max_completion_length if new_tokens is None else new_tokens) or 1,
        model=f"The policy {model_name(model)!r}",
        setting=setting,
    )


def check_vllm_context(config: Any, args: Any) -> None:
    """Refuse a vLLM engine that would read texts of every length with the rotary factors of long ones.

    The length of a server is not known here, so that one line says how to start it.

    Args:
        config: the policy's config.
        args: a [`~trl.GRPOConfig`].

    Raises:
        ValueError: with the length to set: such rollouts would come from another policy than the one that is scored.
    """
    limit, reason = context_length(config), context_reason(config)
    if not reason or not args.use_vllm:
        return
    if args.vllm_mode == "server":
        logger.warning(f"The policy reads {limit} tokens{reason}: start the vLLM server with --max_model_len {limit}.")
        return
    length = args.vllm_max_model_length
    if length is None or length > limit:
        raise ValueError(
            f"vllm_max_model_length={length}, but the policy reads {limit} tokens{reason}, and vLLM would read all "
            f"texts with the factors of longer ones: set vllm_max_model_length to {limit}."
        )


def policy_room(trainer: Any, prompt_lengths: Sequence[int]) -> int | None:
    """Tokens that the policy can read after the longest of the prompts; None where it has no limit."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    limit = context_length(model.config)
    return None if limit is None else limit - _learned_tokens(model) - max(prompt_lengths)


def _learned_tokens(model: Any) -> int:
    """Tokens of a learned prompt that an adapter puts before a model's prompts."""
    prompt = learned_prompt(model)
    return 0 if prompt is None else prompt.num_virtual_tokens
