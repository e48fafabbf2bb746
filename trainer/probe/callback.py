"""A callback that watches during a training which of the policy's distributions move away from the base's."""

import copy
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from rich.progress import track
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import RichProgressCallback
from trl.trainer.utils import get_config_model_id

from tokenshift.analysis.divergence.from_logits import check_sampling
from tokenshift.analysis.sampling.correctness import is_correct
from tokenshift.analysis.thresholds import CORRECT, NEAR_ZERO
from tokenshift.analysis.token_table.schema import SCORED, build_table
from tokenshift.trainer.guard.trackers import protect_trackers, tracker_errors_told
from tokenshift.trainer.policy.context import check_policy_context, policy_room
from tokenshift.trainer.policy.requirements import check_can_be_sampled, image_column
from tokenshift.trainer.policy.responses import (
    Reward,
    generation_settings,
    prompt_token_ids,
    rank_rows,
    rollout_class,
    sampled_responses,
)
from tokenshift.trainer.policy.undisturbed import undisturbed
from tokenshift.trainer.probe.files import FIXED_KIND, MEASURE_PREFIX, OWN_KIND, ProbeFiles
from tokenshift.trainer.probe.trajectories import (
    ProbedTrajectory,
    image_batch,
    read_probed,
    text_batch,
    write_probed,
)
from tokenshift.trainer.probe.views import WandbViews, draw_probe_figures
from tokenshift.trainer.reference import DistributionReference

logger = get_logger(__name__)

PURPOSE = "The shift probe"
"""The subject of what the probe refuses."""

MAX_NEW_TOKENS = 256
"""Tokens of the longest response where neither the trainer nor the user says how many."""

LENGTH_SETTINGS = ("max_completion_length", "max_new_tokens")
"""Settings of TRL's trainers for the longest response that they sample."""

PRINTERS = (PrinterCallback, ProgressCallback, RichProgressCallback)
"""Terminals that show every number they are given."""


class _EndOfProbes(TrainerCallback):
    """Makes a probe's end come before the trackers', which take nothing once they have ended.

    Args:
        probe: the probe, which counts while it is among the trainer's callbacks.
    """

    def __init__(self, probe: "ShiftProbeCallback") -> None:
        self._probe = probe

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._probe in self._probe.trainer.callback_handler.callbacks:
            self._probe.finish(args, state)


Scored = tuple[ProbedTrajectory, dict[str, torch.Tensor]]
"""A trajectory and its statistics by name, one value per token that the policy chose."""


class ShiftProbeCallback(TrainerCallback):
    """
    Scores the current policy against the base, token by token, on a fixed set of prompts: at the start of training,
    every `probe_steps` updates, at every save, and at the end.

    There are two kinds of trajectory: *fixed* ones, sampled by the policy as it was at the start, so that probes can
    be compared; and the policy's *own*, sampled anew at each probe. Training is not changed, bit for bit. The folder
    `output_dir/shift` gets one per-token Parquet file per probe (`step_000040.parquet`), `metrics.json` and
    `figures/`. The numbers go to `state.log_history`, to every tracker that is reported to and to other callbacks'
    `on_log`; in W&B they stand against `shift/step`, and those by position are one histogram, `position`.
    There are `shift/*` on the fixed trajectories and `shift/own/*` on the policy's own:

    - `top_p/*` first, of JS(base, policy) between distributions truncated to `top_p`, the publication's measure, then
      the same names without `top_p/`, of JS between whole ones: `mean, p50, p90, p95, p99, max` (nats),
      `frac_near_zero`, `frac_high`; `entropy_{policy,reference}_{near_zero,low,middle,high}` (nats) by JS;
      `position_00..19`, mean JS (nats); `high/*`, means over high-JS tokens; `jaccard_previous`, `jaccard_first`,
      overlap of the set of high-JS tokens with the last probe's, and with that of the first probe which had any; at
      the end `jaccard_last`, of each probe with the last one;
    - `top_p/frac_exact_zero`, share of tokens whose truncated JS is exactly 0 (nearly always since one and the same
      token fills both nuclei), and `top_p/full_js_at_exact_zero_{mean,max}`, the full JS there (nats);
    - `overlap_{1,2,3,5,10}`, `rl_top1_rank_{1,3}`, `rl_top1_improbable`, over all tokens;
    - `accuracy`, share of responses whose reward is at least `correct_threshold`; `length` (tokens); `tokens`,
      `responses`.

    W&B also gets `log10_js` (histogram) and `most_moved` (table of tokens in context), each by both measures, and four
    figures, whose left panel is of the truncated JS.

    Args:
        trainer: any TRL trainer, before `train` is called; add the probe to it with `trainer.add_callback`.
        dataset: problems with a `prompt`, as text or messages, and the columns that the reward reads.
        probe_steps: updates between probes; with None only the start, the saves and the end are probed.
        probe_size: how many of the problems are used, from the first on.
        base_model: folder or hub name of the base, if it is not the model that the policy began as.
        reward: a reward function with TRL's signature, which judges responses if the trainer has no rewards.
        temperature: divides the logits of both models; ignored if the trainer has a temperature.
        top_p: share of the probability that the truncated divergences keep, in (0, 1].
        max_new_tokens: longest sampled response in tokens, if the trainer has no such setting; by default 256, or as
            many as the policy has positions for after the longest prompt.
        batch_size: trajectories in one forward pass on each rank; by default the trainer's evaluation batch size.
        seed: seed of the sampled responses.
        rollout_func: called for the probe's responses instead of the trainer's own `rollout_func`, whose state belongs
            to the training.
        correct_threshold: lowest reward of a correct response.

    Only tokens that the policy chose are scored, not those of tools and environments; `position` and `length` count
    them alone. Environments are new ones at each probe, made by the trainer's factories. Images go with their prompts
    in GRPO and RLOO.

    Raises:
        ValueError: when training begins, for a prompt and a response that the policy has no positions for. At once,
            for numbers out of range, a dataset without prompts, a base with another tokenizer, or a trainer
            whose policy cannot be sampled (an encoder-decoder model, a rollout function without one for the probe,
            images where they cannot be passed): one line that says what to change.
    """

    def __init__(
        self,
        trainer: Any,
        dataset: Dataset,
        *,
        probe_steps: int | None = None,
        probe_size: int = 32,
        base_model: str | None = None,
        reward: Reward | None = None,
        temperature: float = 1.0,
        top_p: float = 0.7,
        max_new_tokens: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        rollout_func: Callable[..., Any] | None = None,
        correct_threshold: float = CORRECT,
    ) -> None:
        settings = generation_settings(trainer)
        sampled_at = getattr(settings, "temperature", None) or temperature
        self.correct_threshold = correct_threshold
        self.temperature = getattr(trainer, "temperature", sampled_at)
        self.batch_size = trainer.args.per_device_eval_batch_size if batch_size is None else batch_size
        check_sampling(self.temperature, top_p)
        counts = {"probe_steps": probe_steps, "probe_size": probe_size, "max_new_tokens": max_new_tokens}
        for name, value in (counts | {"batch_size": self.batch_size}).items():
            if value is not None and value < 1:
                raise ValueError(f"{name}={value!r} must be at least 1.")
        check_can_be_sampled(trainer, dataset, PURPOSE, rollout_func=rollout_func)
        self.trainer, self.probe_steps, self.top_p = trainer, probe_steps, top_p
        self.reward, self.seed = reward, seed
        self.max_new_tokens = MAX_NEW_TOKENS if max_new_tokens is None else max_new_tokens
        self._fits_length = max_new_tokens is None
        self.rollout_func = rollout_func
        self.dataset = dataset.select(range(min(probe_size, len(dataset))))
        self._has_images = image_column(self.dataset) is not None
        gives_images = getattr(trainer, "tools", None) or getattr(trainer, "environment_factories", None)
        if getattr(trainer, "_is_vlm", False) and (gives_images or rollout_func is not None):
            raise ValueError(
                f"{PURPOSE} cannot keep the images that tools, environments or a rollout function may give to a "
                "vision-language model. Leave the probe out, or give the trainer the model's tokenizer as "
                "processing_class if all is text."
            )
        self.tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
        self.files = ProbeFiles(Path(str(trainer.args.output_dir)) / "shift")
        self._expects_no_shift = base_model is None
        self._wandb = WandbViews(self.files.folder)
        self._fixed: list[ProbedTrajectory] = []  # this rank's
        self._finished = False  # whether the probe at the end is made
        protect_trackers(trainer)
        trainer.callback_handler.callbacks.insert(0, _EndOfProbes(self))
        existing: Any = getattr(trainer, "_reference", None)
        shares = existing is not None and existing.kind == "base" and base_model is None
        self._reference: DistributionReference = (
            existing if shares else DistributionReference(trainer, "base", base_model)
        )

    # When --------------------------------------------------------------------------------------------------------

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._finished = False
        self._check_length()
        if state.is_world_process_zero:
            self.files.forget_after(state.global_step)
            for step in self.files.steps():
                self._record(state, step)  # a checkpoint is written before its probe
        self._fixed = self._fixed_trajectories(state.global_step)
        self._probe(args, state)
        if state.is_world_process_zero and state.global_step == 0 and self._expects_no_shift:
            largest = self.files.metrics(0).get("shift/p99", 0.0)
            if largest > NEAR_ZERO:
                logger.warning(
                    f"Before the first update the policy is {largest:.3g} nats (99th percentile of JS) from the base "
                    "that its config names; give base_model if it began as another model."
                )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.probe_steps is not None and state.global_step % self.probe_steps == 0:
            self._probe(args, state)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._probe(args, state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.finish(args, state)

    def finish(self, args: TrainingArguments, state: TrainerState) -> None:
        """Probe the trained policy and compare all probes with it, once; every rank must call it."""
        if self._finished:
            return
        self._finished = True
        self._probe(args, state)
        if state.is_world_process_zero:
            for kind in (FIXED_KIND, OWN_KIND):
                if (table := self.files.read(state.global_step, kind)).num_rows:
                    draw_probe_figures(self.files, kind, table, ["png", "svg"])
            for measure, prefix in MEASURE_PREFIX.items():
                name, overlaps = f"{prefix}jaccard_last", self.files.overlaps_with_last(measure)
                for step, value in overlaps.items():
                    state.log_history.append({"step": step, f"shift/{name}": value})
                    self._report(args, state, step, {f"shift/{name}": value})
                if self._reports(args):
                    with tracker_errors_told("wandb"):
                        self._wandb.log_overlaps(name, overlaps)

    def _check_length(self) -> None:
        """Refuse responses that would end beyond the policy's last position; a length of its own choice is lowered."""
        own_rollouts = rollout_class(self.trainer) is not None
        if self._has_images or self.rollout_func or (own_rollouts and getattr(self.trainer, "rollout_func", None)):
            return  # what the policy reads is not known before
        lengths = [len(prompt_token_ids(self.trainer, row)) for row in self._rows(list(range(len(self.dataset))))]
        if own_rollouts:
            check_policy_context(self.trainer, lengths)
            return
        settings = generation_settings(self.trainer)
        if settings is not None and settings.max_new_tokens is not None:
            name = next((name for name in LENGTH_SETTINGS if hasattr(self.trainer.args, name)), "max_new_tokens")
            check_policy_context(self.trainer, lengths, settings.max_new_tokens, setting=name)
            return
        room = policy_room(self.trainer, lengths)
        if self._fits_length and room is not None and 0 < room < self.max_new_tokens:
            logger.warning(
                f"{PURPOSE} samples responses of at most {room} tokens, as many as the policy has positions for after "
                "the longest prompt; max_new_tokens sets another number."
            )
            self.max_new_tokens, self._fits_length = room, False
        check_policy_context(self.trainer, lengths, self.max_new_tokens, setting="max_new_tokens")

    # Scoring -----------------------------------------------------------------------------------------------------

    def _probe(self, args: TrainingArguments, state: TrainerState) -> None:
        """Score, write and log, unless this update has its probe; every rank must call it."""
        step = state.global_step
        if self._on_main(self.files.table_path(step).exists()):
            return
        with undisturbed(self.trainer, self.seed + 1 + step):
            sampled = self._responses(f"probe {step}, sampling")
            scored = {FIXED_KIND: self._scored(self._fixed), OWN_KIND: self._scored(sampled)}
            tables = {kind: self._table(kind, rows) for kind, rows in scored.items()}
            if state.is_world_process_zero:
                self._keep(args, state, tables)
        self.trainer.accelerator.wait_for_everyone()

    def _keep(self, args: TrainingArguments, state: TrainerState, tables: Mapping[str, pa.Table]) -> None:
        step = state.global_step
        metrics = self.files.add(step, tables, self._metadata())
        if self._record(state, step):
            self._report(args, state, step, metrics)
        filled = {kind: table for kind, table in tables.items() if table.num_rows}
        if not filled:
            logger.warning(f"The probe at update {step} has no tokens: every response is empty.")
        if self._reports(args):
            figures = {kind: draw_probe_figures(self.files, kind, table, ["png"]) for kind, table in filled.items()}
            with tracker_errors_told("wandb"):
                self._wandb.log_probe(step, metrics, filled, figures, lambda token: self.tokenizer.decode([token]))

    def _record(self, state: TrainerState, step: int) -> bool:
        """Put a probe's numbers into the log history, once; whether they were not there yet."""
        if any(log.get("shift/step") == step for log in state.log_history):
            return False
        state.log_history.append({"step": step, "shift/step": step, **self.files.metrics(step)})
        return True

    def _report(self, args: TrainingArguments, state: TrainerState, step: int, metrics: Mapping[str, float]) -> None:
        """Give a probe's numbers to all that watch the trainer's logs, but to terminals that print every number.

        Args:
            args, state: the trainer's.
            step: the update that the numbers are of.
            metrics: the numbers by their logged names.
        """
        handler = copy.copy(self.trainer.callback_handler)
        handler.callbacks = [each for each in handler.callbacks if not isinstance(each, PRINTERS)]
        of_step = copy.copy(state)
        of_step.global_step = step
        # a copy of the control: a log of ours must not take the place of the trainer's own at this update
        handler.on_log(args, of_step, copy.copy(self.trainer.control), dict(metrics))

    def _metadata(self) -> dict[str, Any]:
        config = self._reference.base_config
        return {
            "base_model": get_config_model_id(config),
            "base_revision": getattr(config, "_commit_hash", None),
            "rl_model": str(self.trainer.args.output_dir),
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
        }

    # Trajectories ------------------------------------------------------------------------------------------------

    def _fixed_trajectories(self, step: int) -> list[ProbedTrajectory]:
        """This rank's share of the fixed trajectories on disk; they are sampled now if there are none."""
        path = self.files.fixed_trajectories
        if not self._on_main(path.exists()):
            with undisturbed(self.trainer, self.seed):
                everyone = gather_object(self._responses(f"probe {step}, fixed responses"))[: len(self.dataset)]
            if step:
                logger.warning(f"The probe's fixed trajectories are sampled at update {step}: there were none before.")
            if self.trainer.accelerator.is_main_process:
                write_probed(path, everyone)
        everyone = self._on_main(read_probed(path) if self.trainer.accelerator.is_main_process else None)
        if len(everyone) != len(self.dataset):
            raise ValueError(
                f"{path} holds {len(everyone)} trajectories, but probe_size is {len(self.dataset)}; delete the folder "
                "to probe anew, or set probe_size back."
            )
        return [everyone[row] for row in rank_rows(len(everyone), self.trainer.accelerator)]

    def _responses(self, description: str) -> list[ProbedTrajectory]:
        """The policy's responses to this rank's problems, judged."""
        rows = rank_rows(len(self.dataset), self.trainer.accelerator)
        trajectories = []
        for start in self._track(range(0, len(rows), self.batch_size), description):
            ids = rows[start : start + self.batch_size]
            responses = sampled_responses(
                self.trainer,
                self._rows(ids),
                temperature=self.temperature,
                max_new_tokens=self.max_new_tokens,
                reward=self.reward,
                rollout_func=self.rollout_func,
            )
            for row, response in zip(ids, responses, strict=True):
                correct = is_correct(response.reward, self.correct_threshold)
                trajectories.append(
                    ProbedTrajectory(row, 0, response.prompt_ids, response.completion_ids, correct, response.chosen)
                )
        return trajectories

    def _rows(self, ids: list[int]) -> list[dict[str, Any]]:
        """The problems as TRL reads them, one dictionary of its own each, images decoded."""
        return [self.dataset[row] for row in ids]

    def _scored(self, trajectories: list[ProbedTrajectory]) -> list[Scored]:
        """This rank's trajectories with their statistics."""
        scored: list[Scored] = []
        for start in self._track(range(0, len(trajectories), self.batch_size), "probe, scoring"):
            part = trajectories[start : start + self.batch_size]
            if self._has_images:
                batch = image_batch(self.trainer, self._rows([trajectory.problem_id for trajectory in part]), part)
            else:
                batch = text_batch(part, self.trainer.accelerator.device)
            statistics = self._reference.trajectory_statistics(batch, SCORED, self.temperature, self.top_p)
            lengths = [trajectory.chosen_count for trajectory in part]
            split = {name: value.cpu().split(lengths) for name, value in statistics.items()}
            scored += [
                (trajectory, {name: values[index] for name, values in split.items()})
                for index, trajectory in enumerate(part)
            ]
        return scored

    def _table(self, kind: str, scored: list[Scored]) -> pa.Table:
        """The rows of all ranks, in the order of the problems."""
        everyone = gather_object(scored)[: len(self.dataset)]
        statistics = {name: torch.cat([values[name] for _, values in everyone]) for name in SCORED}
        trajectories = [trajectory.of_chosen_tokens() for trajectory, _ in everyone]
        return build_table(trajectories, statistics, self.tokenizer, kind)

    # Ranks -------------------------------------------------------------------------------------------------------

    def _on_main(self, value: Any) -> Any:
        """The value that the main process has, on every rank: all must agree on whether a file exists."""
        return broadcast_object_list([value])[0]

    def _track(self, steps: range, description: str) -> Any:
        hidden = not (self.trainer.accelerator.is_main_process and sys.stdout.isatty())
        return track(steps, description, disable=hidden, transient=True)

    @staticmethod
    def _reports(args: TrainingArguments) -> bool:
        return "wandb" in (args.report_to or ())
