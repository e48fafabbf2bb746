"""Mean reward on held-out problems, sampled exactly as in training, on every backend that TRL generates with."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from rich.console import Console
from rich.progress import track
from scipy import stats
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tokenshift.analysis.storage.json_files import read_json
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.trainer.policy.requirements import check_can_be_sampled
from tokenshift.trainer.policy.responses import rank_rows, rollout_class, sampled_responses
from tokenshift.trainer.policy.undisturbed import undisturbed


@dataclass(frozen=True)
class HeldOutScore:
    """A mean reward with its 95 % interval.

    Attributes:
        mean: mean reward; the accuracy, where rewards are 0 or 1.
        low: lower end of the interval; Wilson's for rewards of 0 and 1 or of -1 and 1, else Student's t.
        high: upper end of the interval.
        n: number of problems scored.
        unscored: number of problems that were left out because their reward was None.
    """

    mean: float
    low: float
    high: float
    n: int
    unscored: int = 0

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n})"


def score_interval(rewards: list[float | None]) -> HeldOutScore:
    """Mean and 95 % interval of one reward per problem.

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
    elif set(values) <= {-1.0, 1.0}:
        share = stats.binomtest(values.count(1.0), n).proportion_ci(0.95, method="wilson")
        low, high = 2 * share.low - 1, 2 * share.high - 1
    elif n > 1 and (sem := stats.sem(values)) > 0:
        low, high = stats.t.interval(0.95, n - 1, loc=mean, scale=sem)
    else:
        low, high = mean, mean
    return HeldOutScore(mean, float(low), float(high), n, len(rewards) - n)


def score_over_ranks(
    size: int,
    batch_size: int,
    accelerator: Any,
    rewards_of: Callable[[list[int]], list[float | None]],
    *,
    description: str,
    shown: bool,
    console: Console | None = None,
) -> HeldOutScore:
    """The score of one reward per problem. Ranks share the problems, and their number does not change the score.

    Args:
        size: number of problems.
        batch_size: number of problems at once on each rank.
        accelerator: an object with `process_index` and `num_processes`; every rank must call the function.
        rewards_of: maps indices of problems to the rewards of one response to each.
        description: label of the progress bar.
        shown: whether this rank shows the bar.
        console: where the bar is shown and then cleared; it stays on the standard output when None.

    Raises:
        ValueError: if no reward is a number.
    """
    rows = rank_rows(size, accelerator)
    starts = range(0, len(rows), batch_size)
    rewards: list[float | None] = []
    for start in track(starts, description, console=console, transient=console is not None, disable=not shown):
        rewards += rewards_of(rows[start : start + batch_size])
    return score_interval(gather_object(rewards)[:size])


def check_can_be_scored(trainer: Any, dataset: Dataset, *, rollout_func: Callable[..., Any] | None = None) -> None:
    """Check that `heldout_score` can score a trainer's policy on these problems.

    Raises:
        ValueError: if the trainer has no rewards, or its policy cannot be sampled: one line that says what to change.
    """
    if rollout_class(trainer) is None:
        raise ValueError(
            f"heldout_score needs a trainer with rewards, GRPOTrainer or RLOOTrainer, not {type(trainer).__name__}."
        )
    check_can_be_sampled(trainer, dataset, "heldout_score", rollout_func=rollout_func)


def heldout_score(
    trainer: Any,
    dataset: Dataset,
    *,
    batch_size: int = 64,
    seed: int = 0,
    description: str = "evaluating",
    rollout_func: Callable[..., Any] | None = None,
) -> HeldOutScore:
    """The score of the trainer's current policy: one response per problem, scored by the trainer's first reward.

    Every rank must call it.

    The run is left as it was: its random numbers, its metrics, its environments and the model's mode.

    Args:
        trainer: a GRPO or RLOO trainer of TRL's; its sampling settings, tools, environments and rewards are used.
        dataset: problems with a `prompt` column and those that the rewards and the environments read.
        batch_size: number of problems generated at once on each rank.
        seed: the seed of the sampled responses.
        description: label of the progress bar.
        rollout_func: called instead of the trainer's own `rollout_func`, whose state belongs to the training.

    Raises:
        ValueError: if no reward is a number, or the policy cannot be sampled.
    """
    check_can_be_scored(trainer, dataset, rollout_func=rollout_func)

    def rewards_of(rows: list[int]) -> list[float | None]:
        problems = [dataset[row] for row in rows]  # as TRL reads them, images decoded
        return [response.reward for response in sampled_responses(trainer, problems, rollout_func=rollout_func)]

    accelerator = trainer.accelerator
    with undisturbed(trainer, seed):
        return score_over_ranks(
            len(dataset),
            batch_size,
            accelerator,
            rewards_of,
            description=description,
            shown=accelerator.is_main_process,
        )


class BaseScoreCallback(TrainerCallback):
    """Scores the model before its first update, already placed and sharded, and keeps the score over resumes.

    Args:
        trainer: a GRPO or RLOO trainer of TRL's.
        dataset: the held-out problems.
        file: the JSON file that keeps the score.

    Raises:
        ValueError: if `heldout_score` cannot score the trainer's policy.

    Attributes:
        score: the score of the model before training; None if the run began without one.
    """

    def __init__(self, trainer: Any, dataset: Dataset, file: Path) -> None:
        check_can_be_scored(trainer, dataset)
        self._trainer, self._dataset, self._file = trainer, dataset, file
        self._started = time.monotonic()
        self.score: HeldOutScore | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step > 0:  # resumed
            if self._file.is_file():
                self.score = HeldOutScore(**read_json(self._file))
        else:
            self.score = heldout_score(self._trainer, self._dataset, description="held-out problems, before")
            if state.is_world_process_zero:
                write_whole(self._file, json.dumps(asdict(self.score)))
        self._started = time.monotonic()

    def seconds_since(self) -> float:
        """Wall-clock seconds since training began, without the time of the score."""
        return time.monotonic() - self._started
