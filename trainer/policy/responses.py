"""Responses of the policy during training, and their rewards."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from tokenshift.analysis.sampling.folder_settings import without_folder_settings
from tokenshift.analysis.sampling.rewarded_rows import Reward, row_rewards
from tokenshift.analysis.sampling.token_ids import encode_prompt, end_tokens, padded_left, until_end


@dataclass(frozen=True)
class Response:
    """One sampled response.

    Attributes:
        prompt_ids: token ids of the prompt.
        completion_ids: token ids of the completion, its end token included.
        reward: the value of the first reward; None if it gave none or there is no reward.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    reward: float | None


def rank_rows(size: int, accelerator: Any) -> list[int]:
    """Indices of the rows, of `size` in all, that this rank takes.

    Every rank takes equally many, since sharded models run together. Gathered in rank order and cut to `size`, they
    are rows 0, 1, ...
    """
    per_rank = -(-size // accelerator.num_processes)
    return [(accelerator.process_index * per_rank + offset) % size for offset in range(per_rank)]


def sampled_responses(
    trainer: Any,
    rows: list[dict[str, Any]],
    *,
    temperature: float = 1.0,
    max_new_tokens: int = 256,
    reward: Reward | None = None,
) -> list[Response]:
    """One response to each of this rank's rows; every rank must call it, with equally many rows.

    A GRPO trainer samples by its own settings and backend and is judged by its first reward; other trainers sample
    by `generate` with the arguments given.

    Args:
        trainer: any trainer of TRL's, in eval mode.
        rows: one dictionary per row, with `prompt` and the columns that the reward reads.
        temperature, max_new_tokens: sampling settings of a trainer that has none.
        reward: replaces the trainer's own rewards; it has TRL's signature.

    Raises:
        ValueError: if the reward cannot be called, or gives something else than one number or None per response.
    """
    prompts = [row["prompt"] for row in rows]
    is_grpo = isinstance(trainer, GRPOTrainer)
    if is_grpo:
        generations, trainer.num_generations_eval = trainer.num_generations_eval, 1
        try:
            prompt_ids, ids, _, completions, *_ = trainer._generate(prompts)
        finally:
            trainer.num_generations_eval = generations
    else:
        prompt_ids, ids, completions = _generated(trainer, prompts, temperature, max_new_tokens)
    rewards: list[float | None] = [None] * len(rows)
    if reward is not None:
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        rewards = row_rewards(reward, columns, completions, ids)
    elif is_grpo:
        all_ranks = trainer._calculate_rewards(rows, prompts, completions, ids)[:, 0]  # in rank order
        this_rank = all_ranks[trainer.accelerator.process_index * len(rows) :][: len(rows)].tolist()
        rewards = [None if math.isnan(value) else value for value in this_rank]
    return [Response(list(p), list(c), r) for p, c, r in zip(prompt_ids, ids, rewards, strict=True)]


def _generated(
    trainer: Any, prompts: list[Any], temperature: float, max_new_tokens: int
) -> tuple[list[list[int]], list[list[int]], list[Any]]:
    """Prompt ids, completion ids, and completions as text, or messages where the prompts are."""
    tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
    conversational = not isinstance(prompts[0], str)
    prompt_ids = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids, mask = padded_left(prompt_ids, pad, trainer.accelerator.device)
    ends = end_tokens(tokenizer, trainer.accelerator.unwrap_model(trainer.model))
    settings: dict[str, Any] = {
        "do_sample": True,
        "temperature": temperature,
        "top_p": 1.0,
        "top_k": 0,
        "pad_token_id": pad,
    }
    settings["eos_token_id"] = sorted(ends) or None
    kwargs = trainer.args.gradient_checkpointing_kwargs  # unwrapping turns checkpointing off, and on again with these
    with (
        torch.no_grad(),
        unwrap_model_for_generation(
            trainer.model_wrapped, trainer.accelerator, gradient_checkpointing_kwargs=kwargs
        ) as model,
        without_folder_settings(model),
    ):
        out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=max_new_tokens, **settings)
    completion_ids = [until_end(row, ends) for row in out[:, ids.shape[1] :].tolist()]
    texts = tokenizer.batch_decode(completion_ids, skip_special_tokens=True)
    completions = [[{"role": "assistant", "content": text}] for text in texts] if conversational else texts
    return prompt_ids, completion_ids, completions
