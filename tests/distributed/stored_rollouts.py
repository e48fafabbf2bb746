"""Completions stored beforehand, so that a training on any number of processes makes the same updates.

A prompt's k-th completion is a fixed function of the prompt and of k, its index within the prompt's group; in the
probe and in held-out scores, which take one completion per prompt, k is the number of the update. Everything else of
a training is as it is for a user: rewards, dynamic sampling, the probe, the scores.
"""

import json
from pathlib import Path
from typing import Any

import torch
import trl.trainer.grpo_trainer
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenshift.recipes.pocket.problems import pocket_dataset

ROOT = Path(__file__).parents[2]

GROUP = 8
"""Completions of a prompt."""

ORDER_PROCESSES = 2
"""Processes whose order of completions a single process takes over."""

MAX_NEW_TOKENS = 120

Store = dict[str, list[list[int]]]
"""A prompt's token ids, as words -> the token ids of its completions."""


def make_store(file: Path, train: int, held_out: int) -> None:
    """Write what pocket's base answers to its first training and held-out problems.

    Args:
        file: The JSON file.
        train, held_out: How many problems of each split a training has.
    """
    base = ROOT / "recipes" / "pocket" / "base"
    tokenizer = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base).eval()
    prompts = [*pocket_dataset("train", train)["prompt"], *pocket_dataset("eval", held_out)["prompt"]]
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    store: Store = {}
    torch.manual_seed(0)
    for start in range(0, len(prompts), 16):
        rows = [tokenizer(prompt).input_ids for prompt in prompts[start : start + 16] for _ in range(GROUP)]
        length = max(map(len, rows))
        ids = torch.tensor([[pad] * (length - len(row)) + row for row in rows])
        sampled = model.generate(
            input_ids=ids,
            attention_mask=(ids != pad).long(),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            max_new_tokens=MAX_NEW_TOKENS,
            pad_token_id=pad,
            eos_token_id=end,
        )[:, length:].tolist()
        for row, completion in zip(rows, sampled, strict=True):
            ended = completion[: completion.index(end) + 1] if end in completion else completion
            store.setdefault(_key(row), []).append(ended)
    file.write_text(json.dumps(store))


def use_store(file: Path, micro_steps: int) -> None:
    """Let TRL's trainers take stored completions, in an order in which each update sees the same ones.

    TRL shuffles a generation on each process by itself. Here it is left in its order, and a single process gets the
    order in which `ORDER_PROCESSES` processes go through it.

    Args:
        file: The file of `make_store`.
        micro_steps: Backward passes per generation.
    """
    store: Store = json.loads(file.read_text())

    def stored(
        trainer: Any, prompt_ids: list[list[int]], images: Any, fields: Any, num_generations: int, *others: Any
    ) -> tuple[list[list[int]], None]:
        first, update = trainer.accelerator.process_index * len(prompt_ids), trainer.state.global_step
        members = [(first + row) % GROUP if num_generations > 1 else update % GROUP for row in range(len(prompt_ids))]
        return [store[_key(ids)][member] for ids, member in zip(prompt_ids, members, strict=True)], None

    def ordered(generation: dict[str, Any]) -> dict[str, Any]:
        size = len(generation["completion_ids"])
        order = torch.arange(size)
        if not torch.distributed.is_initialized():
            order = order.view(ORDER_PROCESSES, micro_steps, -1).transpose(0, 1).reshape(-1)
        return {name: _reordered(value, order) for name, value in generation.items()}

    trainer_module: Any = trl.trainer.grpo_trainer
    trainer_module.GRPOTrainer._generate_single_turn = stored
    trainer_module.shuffle_sequence_dict = ordered


def right_answer(completions: list[str], solution: list[str], **columns: Any) -> list[float]:
    """Whether the number in the box is the solution's, without the verifier's processes."""
    return [float(f"\\boxed{{{answer}}}" in text) for text, answer in zip(completions, solution, strict=True)]


def right_for_most(completions: list[str], solution: list[str], **columns: Any) -> list[float]:
    """As `right_answer`, but 0 for every completion of problems whose solution ends in 0, 1 or 2.

    Their groups teach nothing, so that dynamic sampling has something to replace.
    """
    right = right_answer(completions, solution)
    return [0.0 if answer[-1] in "012" else value for value, answer in zip(right, solution, strict=True)]


def _key(prompt_ids: list[int]) -> str:
    return " ".join(map(str, prompt_ids))


def _reordered(value: Any, order: torch.Tensor) -> Any:
    """A generation's rows in another order; what has no rows, as it is."""
    if isinstance(value, torch.Tensor):
        return value[order.to(value.device)] if value.ndim else value
    return [value[index] for index in order.tolist()] if isinstance(value, list) else value
