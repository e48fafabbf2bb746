"""Mean reward on held-out problems, sampled exactly as in training, on every backend that TRL generates with."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from rich.progress import track
from scipy import stats
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.trainer.policy.responses import rank_rows, sampled_responses
from tokenshift.trainer.policy.undisturbed import undisturbed


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
    trainer: Any,
    dataset: Dataset,
    *,
    batch_size: int = 64,
    seed: int = 0,
    description: str = "evaluating",
) -> HeldOutScore:
    """One response a problem by the trainer's current policy, scored by its first reward; every rank must call it.

    Leaves the run as it was: its random numbers, its metrics and the model's mode.

    Args:
        trainer: any GRPO trainer of TRL's; its sampling settings and rewards are used.
        dataset: problems with a `prompt` column and those that the rewards read.
        batch_size: problems generated at once on each rank.
        seed: of the sampled responses.
        description: label of the progress bar.
    """
    accelerator = trainer.accelerator
    rows = rank_rows(len(dataset), accelerator)
    starts = range(0, len(rows), batch_size)
    rewards: list[float | None] = []
    with undisturbed(trainer, seed):
        for start in track(starts, description=description, disable=not accelerator.is_main_process):
            batch = dataset.select(rows[start : start + batch_size])
            rewards += [response.reward for response in sampled_responses(trainer, batch.to_list())]
    return score_interval(gather_object(rewards)[: len(dataset)])


class BaseScoreCallback(TrainerCallback):
    """Scores the model before its first update, already placed and sharded; keeps the score over resumes.

    Attributes:
        score: of the model before training; None if the run began without one.
    """

    def __init__(self, trainer: Any, dataset: Dataset, file: Path) -> None:
        self._trainer, self._dataset, self._file = trainer, dataset, file
        self._started = time.monotonic()
        self.score: HeldOutScore | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step > 0:  # resumed
            if self._file.is_file():
                self.score = HeldOutScore(**json.loads(self._file.read_text()))
        else:
            self.score = heldout_score(self._trainer, self._dataset, description="before")
            if state.is_world_process_zero:
                write_whole(self._file, json.dumps(asdict(self.score)))
        self._started = time.monotonic()

    def seconds_since(self) -> float:
        """Wall-clock seconds since training began, the score not counted."""
        return time.monotonic() - self._started
