"""Mean reward on held-out problems, sampled exactly as in training, on every backend that TRL generates with."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from rich.progress import track
from scipy import stats
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOTrainer

from tokenshift.analysis.whole_file import write_whole


@dataclass(frozen=True)
class HeldOutScore:
    """A mean reward with its 95 % interval.

    Attributes:
        mean: mean reward; the accuracy, where rewards are 0 or 1.
        low: lower end of the interval; Wilson's for rewards of 0 and 1, else Student's t.
        high: its upper end.
        n: problems scored.
        unscored: problems whose reward was None, left out.
    """

    mean: float
    low: float
    high: float
    n: int
    unscored: int = 0

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n})"


def score_interval(rewards: list[float | None]) -> HeldOutScore:
    """Mean and 95 % interval of one reward a problem.

    Raises:
        ValueError: if no reward is a number.
    """
    values = [reward for reward in rewards if reward is not None]
    n = len(values)
    if not n:
        raise ValueError(f"None of the {len(rewards)} held-out problems could be scored; look at their gold answers.")
    mean = sum(values) / n
    if set(values) <= {0.0, 1.0}:
        low, high = stats.binomtest(int(sum(values)), n).proportion_ci(0.95, method="wilson")
    elif n > 1 and (sem := stats.sem(values)) > 0:
        low, high = stats.t.interval(0.95, n - 1, loc=mean, scale=sem)
    else:
        low, high = mean, mean
    return HeldOutScore(mean, float(low), float(high), n, len(rewards) - n)


def heldout_score(
    trainer: GRPOTrainer,
    dataset: Dataset,
    reward: Callable[..., list[float | None]],
    *,
    batch_size: int = 64,
    seed: int = 0,
    description: str = "evaluating",
) -> HeldOutScore:
    """One response a problem by the trainer's current policy, scored by `reward`; every rank must call it.

    Leaves the run as it was: its random numbers, its metrics and the model's mode.

    Args:
        trainer: any GRPO trainer of TRL's; its sampling settings are used.
        dataset: problems with a `prompt` column and those that `reward` reads.
        reward: a function of TRL's reward signature.
        batch_size: problems generated at once on each rank.
        seed: of the sampled responses.
        description: label of the progress bar.
    """
    accelerator = trainer.accelerator
    model: Any = trainer.model
    ranks, rank = accelerator.num_processes, accelerator.process_index
    per_rank = -(-len(dataset) // ranks)
    # Equal work on every rank, since sharded models generate together; the rows beyond the end are dropped again.
    rows = [(rank * per_rank + offset) % len(dataset) for offset in range(per_rank)]
    starts = range(0, per_rank, batch_size)
    was_training, eval_generations = model.training, trainer.num_generations_eval
    rewards: list[float | None] = []
    model.eval()
    trainer.num_generations_eval = 1
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed * 1_000_003 + rank)
            for start in track(starts, description=description, disable=not accelerator.is_main_process):
                batch = dataset.select(rows[start : start + batch_size])
                ids, completions = _generate(trainer, list(batch["prompt"]))
                columns = {name: list(batch[name]) for name in batch.column_names if name != "prompt"}
                rewards += reward(
                    prompts=list(batch["prompt"]), completions=completions, completion_ids=ids, **columns
                )
    finally:
        model.train(was_training)
        trainer.num_generations_eval = eval_generations
        trainer._metrics["eval"].clear()
    return score_interval(gather_object(rewards)[: len(dataset)])


def _generate(trainer: GRPOTrainer, prompts: list) -> tuple[list[list[int]], list]:
    """Token ids and completions (texts or conversations) by TRL's own generation."""
    _, completion_ids, _, completions, *_ = trainer._generate(prompts)
    return completion_ids, completions


class BaseScoreCallback(TrainerCallback):
    """Scores the model before its first update, already placed and sharded; keeps the score over resumes.

    Attributes:
        score: of the model before training; None if the run began without one.
    """

    def __init__(
        self, trainer: GRPOTrainer, dataset: Dataset, reward: Callable[..., list[float | None]], file: Path
    ) -> None:
        self._trainer, self._dataset, self._reward, self._file = trainer, dataset, reward, file
        self._started = time.monotonic()
        self.score: HeldOutScore | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step > 0:  # resumed
            if self._file.is_file():
                self.score = HeldOutScore(**json.loads(self._file.read_text()))
        else:
            self.score = heldout_score(self._trainer, self._dataset, self._reward, description="before")
            if state.is_world_process_zero:
                write_whole(self._file, json.dumps(asdict(self.score)))
        self._started = time.monotonic()

    def seconds_since(self) -> float:
        """Wall-clock seconds since training began, the score not counted."""
        return time.monotonic() - self._started
