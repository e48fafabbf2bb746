"""When the supervised control stops: at the first measurement of accuracy that reaches the target."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer
from trl.models import unwrap_model_for_generation

from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.recipes.command_line.products import SUMMARY_FILE
from tokenshift.recipes.inputs.engines import engine_facts
from tokenshift.recipes.jobs.sft.policy_writers import PolicyWriters
from tokenshift.recipes.jobs.sft.preparation import SftJob
from tokenshift.trainer.guard.guarded_updates import GuardedUpdates
from tokenshift.trainer.policy.heldout import HeldOutScore
from tokenshift.trainer.policy.undisturbed import undisturbed
from tokenshift.trainer.resume.checkpoints import WholeCheckpointTrainer

LOGGED_ACCURACY = "eval_accuracy"
"""Name of the accuracy in the trainer's log; its interval has names that begin with it."""

RUNNING = "running"
"""Outcome of a run that has not ended."""


@dataclass(frozen=True)
class Target:
    """An accuracy to reach.

    Attributes:
        accuracy: the number.
        source: where the number came from.
        score: the accuracy with its interval, where it was measured.
    """

    accuracy: float
    source: str
    score: HeldOutScore | None = None


class StoppableSFTTrainer(GuardedUpdates, WholeCheckpointTrainer, SFTTrainer):
    """[`~trl.SFTTrainer`] that makes no update where none is wanted: at the target already, or resumed at the end."""

    control: Any
    state: Any

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.control.should_training_stop or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)


class StopAtAccuracy(TrainerCallback):
    """Measures accuracy before the first update and every so many, and stops at the first check that is high enough.

    The checks are in the trainer's log history, hence in its checkpoints: a resumed run has those before it stopped.
    A check leaves the run's random numbers and the model's mode as they were.
    """

    def __init__(self, trainer: Any, job: SftJob, target: Target) -> None:
        self._trainer, self._job, self._target = trainer, job, target
        self._writers = PolicyWriters(job)

    def checks(self) -> list[tuple[int, HeldOutScore]]:
        """The checks so far: the update, and the score after it."""
        return [
            (
                int(log["step"]),
                HeldOutScore(
                    log[LOGGED_ACCURACY],
                    *(log[f"{LOGGED_ACCURACY}_{name}"] for name in ("low", "high", "n", "unscored")),
                ),
            )
            for log in self._trainer.state.log_history
            if LOGGED_ACCURACY in log
        ]

    @property
    def reached(self) -> bool:
        """Whether the last check was high enough."""
        checks = self.checks()
        return bool(checks) and checks[-1][1].mean >= self._target.accuracy

    def save(self, outcome: str, model: Path | None = None) -> dict[str, Any]:
        """Write `summary.json` on the main process.

        Args:
            outcome: how the run ended.
            model: where the model is.

        Returns:
            The content of `summary.json`.
        """
        script_args, checks, target = self._job.script_args, self.checks(), self._target
        summary: dict[str, Any] = {
            "outcome": outcome,
            "target_reached": self.reached,
            "target": asdict(target),
            "base": asdict(checks[0][1]) if checks else None,
            "accuracy": asdict(checks[-1][1]) if checks else None,
            "updates": self._trainer.state.global_step,
            "model": None if model is None else str(model),
            "base_model": script_args.base_model,
            "dataset": script_args.dataset_name,
            "wording": script_args.wording,
            "solutions": len(self._job.train),
            "solutions_too_long": self._job.left_out,
            "learning_rate": self._job.args.learning_rate,
            "batch": self._job.args.train_batch_size
            * self._job.args.gradient_accumulation_steps
            * self._trainer.accelerator.num_processes,
            "reward": script_args.reward_func,
            "correct_threshold": script_args.correct_threshold,
            "sampling": asdict(self._job.held_out.sampling),
            "engine": script_args.engine,
            **engine_facts(script_args),
            "checks": [{"update": update, **asdict(score)} for update, score in checks],
        }
        if self._trainer.accelerator.is_main_process:
            write_whole(self._job.output_dir / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
        return summary

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == 0:
            self._check(control)
        control.should_training_stop = self.reached

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._writers.close()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        last = state.global_step >= state.max_steps
        if last or (state.global_step % self._job.script_args.check_steps == 0 and not control.should_training_stop):
            self._check(control)
            control.should_training_stop = control.should_training_stop or self.reached

    def _check(self, control: TrainerControl) -> None:
        trainer, state = self._trainer, self._trainer.state
        label = f"accuracy after {state.global_step} updates"
        with (
            undisturbed(trainer, trainer.args.seed),
            unwrap_model_for_generation(
                trainer.model_wrapped,
                trainer.accelerator,
                gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
            ) as model,
        ):
            score = self._job.held_out.accuracy(self._writers.of(model), self._job.base.tokenizer, label)
        numbers = {
            LOGGED_ACCURACY if name == "mean" else f"{LOGGED_ACCURACY}_{name}": value
            for name, value in asdict(score).items()
        }
        due = control.should_log  # telling of one log makes transformers forget another that is due
        Trainer.log(trainer, numbers)  # not TRL's own, which would also empty its averages
        control.should_log = due
        self.save(RUNNING)
        if trainer.accelerator.is_main_process:
            loss = next((f"  loss {log['loss']:.4f}" for log in reversed(state.log_history) if "loss" in log), "")
            print(f"update {state.global_step}/{state.max_steps}  accuracy {score}{loss}", flush=True)
