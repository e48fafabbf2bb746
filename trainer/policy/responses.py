"""Responses of the policy during training, and their rewards.

A trainer that generates its own rollouts (GRPO, RLOO) is asked for them: TRL's code renders the prompts, passes the
images, runs the tools and resets the environments. Every other trainer's model is sampled by `generate`.
"""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig
from trl import GRPOTrainer, RLOOTrainer
from trl.data_utils import prepare_multimodal_messages
from trl.models import unwrap_model_for_generation

from tokenshift.analysis.divergence.hidden_states import without_adapter
from tokenshift.analysis.sampling.rewarded_rows import Reward, row_rewards
from tokenshift.analysis.sampling.token_ids import encode_prompt, end_tokens, padded_left, until_end
from tokenshift.trainer.policy.undisturbed import set_aside


@dataclass(frozen=True)
class Response:
    """One sampled response.

    Attributes:
        prompt_ids: token ids of the prompt.
        completion_ids: token ids of the completion, its end token included.
        reward: the value of the first reward; None if it gave none or there is no reward.
        chosen: whether the policy chose each token of the completion, and not a tool or an environment; None if it
            chose all.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    reward: float | None
    chosen: list[bool] | None = None


def rank_rows(size: int, accelerator: Any) -> list[int]:
    """Indices of the rows, of `size` in all, that this rank takes.

    Every rank takes equally many, since sharded models run together. Gathered in rank order and cut to `size`, they
    are rows 0, 1, ...
    """
    per_rank = -(-size // accelerator.num_processes)
    return [(accelerator.process_index * per_rank + offset) % size for offset in range(per_rank)]


def rollout_class(trainer: Any) -> Any:
    """TRL's class that generates a trainer's rollouts, or None for a trainer whose model is sampled by `generate`."""
    return next((kind for kind in (GRPOTrainer, RLOOTrainer) if isinstance(trainer, kind)), None)


def sampled_responses(
    trainer: Any,
    rows: list[dict[str, Any]],
    *,
    temperature: float = 1.0,
    max_new_tokens: int = 256,
    reward: Reward | None = None,
    rollout_func: Callable[..., Any] | None = None,
) -> list[Response]:
    """One response to each of this rank's rows; every rank must call it, with equally many rows.

    A GRPO or RLOO trainer samples by its own settings and backend and is judged by its first reward; other trainers
    sample by `generate`, with the trainer's `generation_config` if it has one, else with the arguments given.

    Args:
        trainer: any trainer of TRL's, in eval mode.
        rows: one dictionary per row, with `prompt` and the columns that the reward reads.
        temperature, max_new_tokens: sampling settings of a trainer that has none.
        reward: replaces the trainer's own rewards; it has TRL's signature.
        rollout_func: replaces the trainer's own `rollout_func`.

    Raises:
        ValueError: if the reward cannot be called, or gives something else than one number or None per response.
    """
    if rollout_class(trainer) is not None:
        return _rollouts(trainer, rows, reward, rollout_func)
    prompts = [row["prompt"] for row in rows]
    prompt_ids, ids, completions = _generated(trainer, rows, temperature, max_new_tokens)
    rewards: list[float | None] = [None] * len(rows)
    if reward is not None:
        rewards = row_rewards(reward, {**_columns(rows), "prompt": prompts}, completions, ids)
    return [Response(list(p), list(c), r) for p, c, r in zip(prompt_ids, ids, rewards, strict=True)]


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


# Rollouts by TRL -------------------------------------------------------------------------------------------------


@dataclass
class _Rollout:
    """A batch that TRL generated, taken on its way to the rewards."""

    prompt_ids: list[list[int]] = field(default_factory=list)
    completion_ids: list[list[int]] = field(default_factory=list)
    chosen: list[list[int]] | None = None
    rewards: list[float | None] = field(default_factory=list)


def _rollouts(
    trainer: Any, rows: list[dict[str, Any]], reward: Reward | None, rollout_func: Callable[..., Any] | None
) -> list[Response]:
    """Responses generated and judged by TRL's own code."""
    rollout = _Rollout()
    generate, judge = trainer._generate, trainer._calculate_rewards

    def generated(prompts: list[Any]) -> Any:
        output = generate(prompts)
        rollout.prompt_ids, rollout.completion_ids = list(output[0]), list(output[1])
        if isinstance(trainer, GRPOTrainer):
            rollout.chosen = output[2]
        return output

    def judged(inputs: list[dict[str, Any]], prompts: list[Any], completions: list[Any], ids: Any) -> torch.Tensor:
        if reward is None:
            rewards: torch.Tensor = judge(inputs, prompts, completions, ids)
            rollout.rewards = _first_rewards(trainer, rewards, len(rows))
            return rewards
        columns: dict[str, Any] = {**_columns(inputs), "prompt": prompts}
        if getattr(trainer, "environments", None) is not None:
            columns["environments"] = trainer.environments
        rollout.rewards = row_rewards(reward, columns, completions, ids)
        return _no_rewards(trainer, len(rows))

    replaced = {"rollout_func": _counted(rollout_func)} if rollout_func is not None else {}
    with _generation_alone(trainer), set_aside(trainer, _generate=generated, _calculate_rewards=judged, **replaced):
        rollout_class(trainer)._generate_and_score_completions(trainer, rows)
    trainer.model.eval()  # continuous batching leaves the model in training mode
    chosen: list[Any] = rollout.chosen or [None] * len(rows)
    return [
        Response(list(prompt), list(ids), value, None if mask is None or all(mask) else [bool(one) for one in mask])
        for prompt, ids, value, mask in zip(
            rollout.prompt_ids, rollout.completion_ids, rollout.rewards, chosen, strict=True
        )
    ]


def _counted(rollout_func: Callable[..., Any]) -> Callable[..., Any]:
    """The rollout function, refused where it gives another number of completions than one to each prompt."""

    def counted(prompts: list[Any], trainer: Any) -> Any:
        output = rollout_func(prompts, trainer)
        if (count := len(output.get("completion_ids", prompts))) != len(prompts):
            raise ValueError(
                f"rollout_func returned {count} completions to {len(prompts)} prompts; here, as in every evaluation, "
                "it must return trainer.num_generations_eval for each."
            )
        return output

    return counted


@contextmanager
def _generation_alone(trainer: Any) -> Iterator[None]:
    """Let TRL make one completion per row, without the forward passes that only a loss needs."""

    def no_logps(model: Any, input_ids: torch.Tensor, mask: Any, kept: int, *args: Any, **kwargs: Any) -> Any:
        return torch.zeros(len(input_ids), kept, device=input_ids.device), None, None

    with set_aside(
        trainer,
        num_generations_eval=1,
        beta=0.0,
        mask_truncated_completions=False,
        _get_per_token_logps_and_entropies=no_logps,
    ):
        yield


def _first_rewards(trainer: Any, rewards: torch.Tensor, size: int) -> list[float | None]:
    """The first reward of each of this rank's rows; of several environments, that of the row's own.

    Args:
        trainer: the trainer.
        rewards: `(R, F)` of all ranks, in rank order; NaN where a function gave no reward.
        size: number of this rank's rows.
    """
    mine = rewards[trainer.accelerator.process_index * size :][:size].tolist()
    columns = len(mine[0]) if getattr(trainer, "environments", None) is not None else 1
    return [next((value for value in row[:columns] if not math.isnan(value)), None) for row in mine]


def _no_rewards(trainer: Any, size: int) -> torch.Tensor:
    shape = (size * trainer.accelerator.num_processes, len(trainer.reward_funcs))
    return torch.zeros(shape, device=trainer.accelerator.device)


def replayed_rollout(
    trainer: Any, rows: list[dict[str, Any]], prompt_ids: list[list[int]], completion_ids: list[list[int]]
) -> dict[str, Any]:
    """The tensors of a generation that TRL would make if the policy gave these completions, images among them.

    Args:
        trainer: a GRPO or RLOO trainer in eval mode.
        rows: one dictionary per row, with `prompt` and its images.
        prompt_ids, completion_ids: token ids of each row's response.

    Raises:
        ValueError: if the rows' prompts are no longer those of the responses.
    """

    def generated(prompts: list[Any]) -> Any:
        tokenized, images, _ = trainer._tokenize_prompts(prompts)
        if [list(ids) for ids in tokenized] != prompt_ids:
            raise ValueError("The prompts of the probe's problems are not those of its trajectories any more.")
        if isinstance(trainer, GRPOTrainer):
            return prompt_ids, completion_ids, None, [""] * len(rows), None, {}, images, []
        return prompt_ids, completion_ids, [""] * len(rows)

    def judged(*args: Any) -> torch.Tensor:
        return _no_rewards(trainer, len(rows))

    with _generation_alone(trainer), set_aside(trainer, _generate=generated, _calculate_rewards=judged):
        tensors: dict[str, Any] = rollout_class(trainer)._generate_and_score_completions(trainer, rows)
    return tensors


# Generation by transformers --------------------------------------------------------------------------------------


def generation_settings(trainer: Any) -> GenerationConfig | None:
    """The settings by which a trainer of TRL's generates, or None for a trainer that does not."""
    settings = getattr(trainer, "generation_config", None)
    return settings if isinstance(settings, GenerationConfig) else None


def prompt_token_ids(trainer: Any, row: dict[str, Any]) -> list[int]:
    """Token ids of a row's prompt in a trainer whose model is sampled by `generate`.

    As in TRL, a row's `tools` and `chat_template_kwargs` go to the chat template, and so do the trainer's.
    """
    processing, prompt = trainer.processing_class, row["prompt"]
    tokenizer = getattr(processing, "tokenizer", processing)
    options = {**(getattr(trainer, "chat_template_kwargs", None) or {}), **(row.get("chat_template_kwargs") or {})}
    if tools := row.get("tools"):
        options["tools"] = json.loads(tools) if isinstance(tools, str) else tools
    if isinstance(prompt, str) or (not options and tokenizer.chat_template):
        return encode_prompt(tokenizer, prompt)
    if tokenizer.chat_template:
        ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False, **options)
    else:  # a processor's template takes blocks of content, and gives a batch
        ids = processing.apply_chat_template(
            prepare_multimodal_messages(prompt),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            **options,
        )[0]
    return list(ids)


def _generated(
    trainer: Any, rows: list[dict[str, Any]], temperature: float, max_new_tokens: int
) -> tuple[list[list[int]], list[list[int]], list[Any]]:
    """Prompt ids, completion ids, and completions as text, or messages where the prompts are."""
    tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
    conversational = not isinstance(rows[0]["prompt"], str)
    prompt_ids = [prompt_token_ids(trainer, row) for row in rows]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids, mask = padded_left(prompt_ids, pad, trainer.accelerator.device)
    policy = trainer.accelerator.unwrap_model(trainer.model)
    ends = end_tokens(tokenizer, policy)
    settings = generation_settings(trainer)
    defaults: dict[str, Any] = {}
    if settings is None:  # nothing that the model's folder says is mixed in
        settings = GenerationConfig(
            do_sample=True, temperature=temperature, top_p=1.0, top_k=0, max_new_tokens=max_new_tokens
        )
        defaults["generation_config"] = GenerationConfig(bos_token_id=tokenizer.bos_token_id, eos_token_id=list(ends))
    kwargs = trainer.args.gradient_checkpointing_kwargs  # unwrapping turns checkpointing off, and on again with these
    with (
        torch.no_grad(),
        set_aside(without_adapter(policy), **defaults),
        unwrap_model_for_generation(
            trainer.model_wrapped, trainer.accelerator, gradient_checkpointing_kwargs=kwargs
        ) as model,
    ):
        out = model.generate(
            input_ids=ids, attention_mask=mask, generation_config=settings, pad_token_id=pad, num_return_sequences=1
        )
    completion_ids = [until_end(row, ends) for row in out[:, ids.shape[1] :].tolist()]
    texts = tokenizer.batch_decode(completion_ids, skip_special_tokens=True)
    completions = [[{"role": "assistant", "content": text}] for text in texts] if conversational else texts
    return prompt_ids, completion_ids, completions
