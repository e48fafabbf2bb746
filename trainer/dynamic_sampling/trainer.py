"""DAPO's dynamic sampling (arXiv 2503.14476). Prompts whose completions are all right or all wrong are replaced in
the batch by others, whatever a length penalty adds to their rewards.

A batch is first generated as TRL does. Each group whose rewards are all equal, by the one reward that filters, is
replaced by the next group of the stream whose rewards differ: further rounds generate groups until none is missing or
the maximum number of rounds is reached. A round takes nearly as long for one group as for many, so that it generates
more groups than are missing, by the running share of useful ones (`round_sizes`). Rows that are not replaced keep
their positions, so every rank keeps its number of rows.

All prompts come from one stream, in order, and not from TRL's dataloader, which only counts the steps. Groups up to
the one that fills the batch count as taken. The groups of a round beyond it are dropped, and their prompts go back to
the stream, so that neither the ranks nor the sizes of rounds change which prompts follow. Where nothing is replaced
and epochs are whole batches, training is bit for bit the same as without dynamic sampling.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import TrainerState

from tokenshift.analysis.storage.checkpoints import TRAINER_STATE
from tokenshift.trainer.dynamic_sampling.filtering_reward import FilteringReward, filtering_reward
from tokenshift.trainer.dynamic_sampling.generation_logs import (
    LoggedRows,
    counted_by_groups,
    put_rows,
    replace_logged,
    take_rows,
)
from tokenshift.trainer.dynamic_sampling.prompt_groups import (
    GroupOutcome,
    batch_scaled_advantages,
    paddings,
    placed_groups,
    replace_rows,
    rows_of,
    summed_rewards,
)
from tokenshift.trainer.dynamic_sampling.prompt_stream import PromptStream, Round, RoundLog
from tokenshift.trainer.dynamic_sampling.round_sizes import SHORTEST_MEMORY, best_round_size
from tokenshift.trainer.policy.requirements import image_column
from tokenshift.trainer.policy.undisturbed import fresh_environments
from tokenshift.trainer.resume.exact_resume import ResumableGRPOTrainer

logger = get_logger(__name__)

STREAM_FILE = "dynamic_sampling.json"
"""File of a checkpoint that holds the position of the stream of prompts."""

LOG_FILE = "dynamic_sampling.jsonl"
"""File of `output_dir` with the prompts of every round and their outcomes, one line per round."""


@dataclass
class SamplingWindow:
    """Counts of the batches since the last log; the same on every rank, since all read the gathered rewards."""

    batches: int = 0
    rounds: int = 0
    filled: int = 0
    verdicts: Counter[GroupOutcome] = field(default_factory=Counter)

    def add(self, rounds: list[Round]) -> None:
        """Count one batch's rounds."""
        self.batches += 1
        self.rounds += len(rounds)
        self.filled += len(rounds[-1].filled)
        self.verdicts.update(verdict for entry in rounds for verdict in entry.verdicts)

    def metrics(self) -> dict[str, float]:
        """The metrics `dynamic_sampling/*`; empty if no batch was made."""
        if not self.batches:
            return {}
        returned = self.verdicts[GroupOutcome.RETURNED]
        taken = self.verdicts.total() - returned
        metrics = {"rounds": self.rounds / self.batches, "filled": float(self.filled), "returned": float(returned)}
        shares = {"kept": GroupOutcome.KEPT, "all_right": GroupOutcome.ALL_RIGHT, "all_wrong": GroupOutcome.ALL_WRONG}
        metrics |= {f"{name}_share": self.verdicts[verdict] / taken for name, verdict in shares.items()}
        return {f"dynamic_sampling/{name}": value for name, value in metrics.items()}


@dataclass
class Generation:
    """Completions of one round, or of the batch.

    Attributes:
        tensors: TRL's tensors by name, with this rank's rows `(B, ...)`.
        rewards: summed rewards `(R,)` of all ranks' rows.
        table: rows of the completions table, of all ranks.
        indices: dataset index of each group's prompt.
    """

    tensors: dict[str, Any]
    rewards: torch.Tensor
    table: LoggedRows
    indices: list[int]


def _same_rows(data: Dataset) -> bool:
    """Whether the rows name no problem, apart from the environment that it comes from."""
    if set(data.column_names) - {"prompt", "environment"}:
        return False
    prompts = data["prompt"] if "prompt" in data.column_names else []
    return all(prompt == prompts[0] for prompt in prompts)


class DynamicSamplingGRPOTrainer(ResumableGRPOTrainer):
    """[`~trl.GRPOTrainer`] with dynamic sampling, if `args.dynamic_sampling` is set; otherwise training is unchanged.

    Logs, exactly over all ranks and all batches since the last log: `dynamic_sampling/rounds`, generations per batch;
    `dynamic_sampling/{kept,all_right,all_wrong}_share` of the groups taken; `dynamic_sampling/filled`, the number of
    groups that stayed in the batches with equal rewards and advantages of 0; `dynamic_sampling/returned`, the number
    of groups generated beyond those that filled the batches. TRL's metrics of a generation (`reward`, `completions/*`,
    ...) are over all rounds, weighted by their groups; its completions table shows the batch.

    A replaced row keeps the log-probabilities of its round, where padding may have shifted it. They are
    exact up to rounding for models with relative positions (rotary ones too), but not with absolute ones.

    Tools and environments work as in TRL; the further rounds of a batch step environments of their own, newly made.

    Raises:
        ValueError: if the training data is a stream, which has no order to resume, has images, or is an environment's
            own; if `args.dynamic_sampling_metric` names no reward that can filter; in training, if the reward that
            filters told no group of the first batch from another, because it gave no completion a reward, or is graded
            and `args.correct_threshold` lies outside its rewards.
    """

    num_generations: int
    _filter: FilteringReward

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._stream: PromptStream | None = None
        super().__init__(*args, **kwargs)
        self._sampling = SamplingWindow()
        self._round_rewards = torch.empty(0)  # (R, F), of the last generation
        self._batch_rewards = torch.empty(0)  # (R,), summed, of the batch
        self._round_log = RoundLog(Path(str(self.args.output_dir)) / LOG_FILE)
        self._filter_works = False  # whether the reward that filters has been seen to give rewards
        if self.args.dynamic_sampling and self.train_dataset is not None:
            self._stream = self._new_stream()
            given = kwargs.get("reward_funcs", args[1] if len(args) > 1 else None)
            self._filter = filtering_reward(
                self.args.dynamic_sampling_metric,
                self.reward_func_names,
                self.args.correct_threshold,
                of_environments=not given,
            )

    def _new_stream(self) -> PromptStream:
        data = self.train_dataset
        if not isinstance(data, Dataset):
            raise ValueError(
                f"dynamic_sampling=True needs a datasets.Dataset to train on, not {type(data).__name__}: it takes "
                "prompts by their index."
            )
        if (images := image_column(data)) is not None:
            raise ValueError(f"dynamic_sampling=True is for text, but the data has a column {images!r} with images.")
        if self._is_vlm and (self.tools or self.environment_factories is not None):
            raise ValueError(
                "dynamic_sampling=True is for text, but the tools or environments of a vision-language model may give "
                "images; set it to False."
            )
        if self.environment_factories is not None and _same_rows(data):
            raise ValueError(
                "dynamic_sampling=True takes prompts by their index, but the data's rows are all the same: the "
                "environment draws the problems. Give a train_dataset that names them, or set it to False."
            )
        return PromptStream(len(data), self.args.seed, bool(self.shuffle_dataset))

    # One batch ---------------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if self._stream is None or not self.model.training:
            tensors = super()._generate_and_score_completions(inputs)
            self._batch_rewards = summed_rewards(self._round_rewards, self.reward_weights)
            return tensors
        ranks, members = self.accelerator.num_processes, self.num_generations
        size = len(inputs) * ranks // members  # of the batch, in groups
        batch, latest = self._generate_round(self._stream, size, 1, size)
        rounds, rewards = [latest], [self._round_rewards]
        open_slots = [slot for slot, verdict in enumerate(latest.verdicts) if verdict is not GroupOutcome.KEPT]
        while open_slots and len(rounds) < self.args.dynamic_sampling_max_rounds:
            count = best_round_size(len(open_slots), size, self._stream.useful.value, members, ranks)
            with fresh_environments(self):
                fresh, latest = self._generate_round(self._stream, count, len(rounds) + 1, size)
            rounds.append(latest)
            rewards.append(self._round_rewards)
            pairs, used = placed_groups(open_slots, latest.verdicts)
            self._stream.give_back(count - used)
            latest.verdicts[used:] = [GroupOutcome.RETURNED] * (count - used)
            if pairs:
                self._replace(batch, fresh, pairs)
            open_slots = open_slots[len(pairs) :]
        latest.filled = [batch.indices[slot] for slot in open_slots]
        if not self._filter_works:
            if mistake := self._filter.mistake(rewards, members):
                raise ValueError(mistake)
            if warning := self._filter.warning(rewards, members):
                logger.warning(warning)
            self._filter_works = True
        if len(rounds) > 1:
            self._finish(batch, rows_of(open_slots, members))
        self._batch_rewards = batch.rewards
        put_rows(self._logs, batch.table)
        self._sampling.add(rounds)
        if self.accelerator.is_main_process:
            self._round_log.append(rounds)
        return batch.tensors

    def _generate_round(
        self, stream: PromptStream, groups: int, number: int, batch_groups: int
    ) -> tuple[Generation, Round]:
        """Generate completions to the next prompts with TRL, and find the outcome of each prompt.

        Args:
            stream: where the prompts come from; it counts how many of them were useful.
            groups: number of prompts.
            number: the number of the round within its batch, from 1.
            batch_groups: number of prompts of the whole batch.
        """
        indices, members = stream.take(groups), self.num_generations
        size = groups * members // self.accelerator.num_processes
        start = self.accelerator.process_index * size
        data = self._remove_unused_columns(self.train_dataset, description="training")
        # one dictionary per row, since rollout functions write into them
        inputs = [data[indices[row // members]] for row in range(start, start + size)]
        take_rows(self._logs)
        with counted_by_groups(self._metrics["train"], groups):
            tensors = super()._generate_and_score_completions(inputs)
        rewards = summed_rewards(self._round_rewards, self.reward_weights)
        verdicts = self._filter.outcomes(self._round_rewards, self.reward_weights, members)
        stream.useful.add(verdicts.count(GroupOutcome.KEPT), groups, max(SHORTEST_MEMORY, 2 * batch_groups))
        generation = Generation(tensors, rewards, take_rows(self._logs), list(indices))
        return generation, Round(self.state.global_step, number, indices, verdicts)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._round_rewards = super()._calculate_rewards(*args, **kwargs)
        return self._round_rewards

    def _replace(self, batch: Generation, fresh: Generation, pairs: list[tuple[int, int]]) -> None:
        """Put groups of a round into slots of the batch; `pairs` are `(slot, group)`.

        Raises:
            ValueError: for a tensor whose meaning is not known, such as an image's.
        """
        to = rows_of([slot for slot, _ in pairs], self.num_generations)  # counted over all ranks, as `source`
        source = rows_of([group for _, group in pairs], self.num_generations)
        batch.rewards[to.to(batch.rewards.device)] = fresh.rewards[source.to(fresh.rewards.device)]
        replace_logged(batch.table, fresh.table, to.tolist(), source.tolist())
        for slot, group in pairs:
            batch.indices[slot] = fresh.indices[group]

        mine, rows = self._local(to, len(batch.rewards))
        known = paddings(self._tokenizer.pad_token_id)
        for name, value in fresh.tensors.items():  # one at a time, since all ranks' rows come together
            if name == "num_items_in_batch":
                continue
            if name not in known or name not in batch.tensors:
                raise ValueError(f"dynamic_sampling=True is for text: it cannot replace rows of {name!r}.")
            padding = known[name]
            if padding is not None:
                value = self.accelerator.pad_across_processes(
                    value, dim=1, pad_index=padding.value, pad_first=padding.side == "left"
                )
            everyone = self.accelerator.gather(value)
            batch.tensors[name] = replace_rows(batch.tensors[name], everyone, rows, source[mine], padding)

    def _local(self, rows: torch.Tensor, total: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Which `rows` `(k,)`, of `total` over all ranks, are this rank's, bool; and their indices on this rank."""
        size = total // self.accelerator.num_processes
        start = self.accelerator.process_index * size
        mine = (rows >= start) & (rows < start + size)
        return mine, rows[mine] - start

    def _finish(self, batch: Generation, filled: torch.Tensor) -> None:
        """Recompute TRL's advantages and token count of the whole batch; rows `filled` `(k,)` have equal rewards."""
        tensors = batch.tensors
        advantages = tensors["advantages"].clone()
        if self.scale_rewards == "batch":
            scaled = batch_scaled_advantages(batch.rewards, self.num_generations)
            advantages = scaled.view(self.accelerator.num_processes, -1)[self.accelerator.process_index].clone()
        mine = self._local(filled, len(batch.rewards))[1]
        advantages[mine.to(advantages.device)] = 0.0  # which TRL's rounding misses
        tensors["advantages"] = advantages
        batch.table["advantages", ""] = self.accelerator.gather(advantages).tolist()
        mask = tensors["completion_mask"]
        mask = mask * tensors["tool_mask"] if "tool_mask" in tensors else mask
        tensors["num_items_in_batch"] = self.accelerator.gather(mask.sum()).sum()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.model.training:
            for name, value in self._sampling.metrics().items():
                self._metrics["train"][name].append(value)
            self._sampling = SamplingWindow()
        super().log(logs, start_time)

    # Over checkpoints --------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        if self._stream is not None and not resume_from_checkpoint:
            self._stream.restart()
            if self.accelerator.is_main_process:
                self._round_log.forget_from(0)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _save_more(self, checkpoint: Path) -> None:
        super()._save_more(checkpoint)
        if self._stream is not None and self.accelerator.is_main_process:
            self._stream.save(checkpoint / STREAM_FILE)

    def _load_generation_state(self, checkpoint: Path) -> None:
        super()._load_generation_state(checkpoint)
        if self._stream is None:
            return
        outcome: list[Any] = [None, None]  # the main process's position and share of useful prompts, or its error
        if self.accelerator.is_main_process:
            try:
                self._stream.load(checkpoint / STREAM_FILE)
                outcome[0] = (self._stream.position, self._stream.useful)
                self._go_on_logging(checkpoint)
            except ValueError as error:
                outcome[1] = str(error)
        state, wrong = broadcast_object_list(outcome)
        if wrong is not None:
            raise ValueError(wrong)
        self._stream.position, self._stream.useful = state

    def _go_on_logging(self, checkpoint: Path) -> None:
        """Remove the rounds after the checkpoint's update from the log."""
        assert self._stream is not None
        step = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE)).global_step
        told = self._round_log.forget_from(step)
        if told != self._stream.position:
            logger.warning(
                f"{self._round_log.file} tells of {told} of the {self._stream.position} prompts that the run has "
                "taken."
            )
