"""A small world for dynamic sampling: problems of which some always get one reward, and scripted completions.

As a script it trains in it under any number of processes:

    accelerate launch --num_processes 2 tests/helpers/dynamic_training.py MODEL OUT '{"name": {"max_steps": 4}, ...}'
"""

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset

from helpers.tiny_training import SETTINGS, parameters, same
from tokenshift.recipes.pocket.problems import pocket_dataset
from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer


def numbered(size: int) -> Dataset:
    """Problems with a column `number`, by which the reward picks those that teach nothing."""
    problems = pocket_dataset("train", size)
    return problems.add_column("number", list(range(size)))


def constant(number: int) -> float | None:
    """The reward that every completion of a problem gets; None where it depends on the completion."""
    return {0: 1.0, 1: 0.0}.get(number % 3)


def some_constant_reward(completions: list[str], number: list[int], **columns: Any) -> list[float]:
    """Different for different completions, and never 1, but for the problems that are `constant`."""
    rewards = []
    for text, each in zip(completions, number, strict=True):
        fixed = constant(each)
        rewards.append(zlib.crc32(text.encode()) % 1000 / 1001 if fixed is None else fixed)
    return rewards


def length_penalty(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """Different for completions of different length, as most of a group are."""
    return [-len(ids) / 16 for ids in completion_ids]


def scripted_rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
    """Completions set by the prompt and the place in the group, so the same for any number of processes."""
    tokenizer, rank = trainer.processing_class, trainer.accelerator.process_index
    completions = []
    for row, prompt in enumerate(prompts):
        member = (rank * len(prompts) + row) % trainer.num_generations
        length = 1 + (zlib.crc32(prompt.encode()) + member) % 7
        completions.append(tokenizer(str(member) * length)["input_ids"] + [tokenizer.eos_token_id])
    return {
        "prompt_ids": tokenizer(prompts)["input_ids"],
        "completion_ids": completions,
        "logprobs": [[-0.5 - len(ids)] * len(ids) for ids in completions],
    }


class Recorder(DivergenceGRPOTrainer):
    """Keeps every generation, and the prompts that each loss was computed from."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.generations: list[dict[str, torch.Tensor]] = []
        self.in_losses: list[list[str]] = []
        super().__init__(*args, **kwargs)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        outputs = super()._generate_and_score_completions(inputs)
        if self.model.training:
            self.generations.append(dict(outputs))
        return outputs

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        if self.model.training:
            self.in_losses.append(self.processing_class.batch_decode(inputs["prompt_ids"], skip_special_tokens=True))
        return super()._compute_loss(model, inputs)


def rows(generation: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
    """A generation's rows without their padding."""
    found = []
    for row in range(len(generation["prompt_ids"])):
        prompt, completion = generation["prompt_mask"][row].bool(), generation["completion_mask"][row].bool()
        per_token = {name: generation[name][row][completion].tolist() for name in generation if "per_token" in name}
        found.append(
            {
                "prompt_ids": generation["prompt_ids"][row][prompt].tolist(),
                "completion_ids": generation["completion_ids"][row][completion].tolist(),
                "advantage": generation["advantages"][row].item(),
                "reward": generation["reward"][row].item(),
                **per_token,
            }
        )
    return found


def trainer_of(model: str, out: Path, settings: dict[str, Any]) -> Recorder:
    """A trainer by the config's settings; `penalty` adds a penalty of length to the reward."""
    settings = {**SETTINGS, "dynamic_sampling": True, **settings}
    rewards: list[Any] = [some_constant_reward, length_penalty][: 1 + settings.pop("penalty", False)]
    args = DivergenceGRPOConfig(output_dir=str(out), **settings)
    data = numbered(24).select(range(13))
    return Recorder(model, rewards, args, data, rollout_func=scripted_rollout)


def main(model: str, out: str, runs: str) -> None:
    """Train by each of some settings, and write a JSON file a run with what each generation became, in rank order."""
    for name, settings in json.loads(runs).items():
        trainer = trainer_of(model, Path(out) / name, settings)
        trainer.train()
        found = [
            {
                "rows": [row for part in gather_object([rows(generation)]) for row in part],
                "num_items_in_batch": int(generation["num_items_in_batch"]),
                "sizes": gather_object([len(generation["advantages"])]),
            }
            for generation in trainer.generations
        ]
        last = parameters(trainer)
        if "save_steps" in settings:  # and again from the middle
            trainer = trainer_of(model, Path(out) / name, settings)
            trainer.train(resume_from_checkpoint=str(Path(out) / name / f"checkpoint-{settings['save_steps']}"))
        product = {"generations": found, "logs": trainer.state.log_history, "same": same(last, parameters(trainer))}
        if trainer.accelerator.is_main_process:
            Path(out, f"{name}.json").write_text(json.dumps(product))


if __name__ == "__main__":
    main(*sys.argv[1:])
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
