"""Checkpoints that appear whole or not at all, and from which a run resumes as if it had never stopped.

Stock TRL 1.16 writes a checkpoint's files in place, so a killed run can leave an incomplete one that looks
like the last. It resumes exactly only at a generation boundary of the first epoch, since it saves neither the buffered
completions nor the micro-step, and does not replay the sampler's epochs.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from transformers import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from tokenshift.analysis.storage.pickles import check_checkpoint

logger = get_logger(__name__)

STAGING_DIR = ".incomplete"
TRAINER_STATE = "trainer_state.json"


class ReplayedRepeatSampler(RepeatSampler):
    """TRL's sampler, which can begin at a later epoch with the order that an uninterrupted run has there."""

    def skip_epochs(self, epochs: int) -> None:
        """Draw and discard the permutations of `epochs` epochs."""
        if self.shuffle:
            for _ in range(epochs):
                torch.randperm(self.num_samples, generator=self.generator)


def _generation_file(checkpoint: Path, rank: int) -> Path:
    return checkpoint / f"generation_state_{rank}.pt"


class ResumableGRPOTrainer(GRPOTrainer):
    """[`~trl.GRPOTrainer`] with atomic checkpoints and exact resume; training itself is untouched."""

    args: Any
    model: Any
    accelerator: Accelerator
    _staging = False

    # Writing a checkpoint ----------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        run_dir = super()._get_output_dir(trial)
        return os.path.join(run_dir, STAGING_DIR) if self._staging else run_dir

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        run_dir = Path(super()._get_output_dir(trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        staged, final = run_dir / STAGING_DIR / name, run_dir / name
        if self.accelerator.is_local_main_process:
            shutil.rmtree(run_dir / STAGING_DIR, ignore_errors=True)
        self.accelerator.wait_for_everyone()

        # Old checkpoints are deleted, and the hub gets its copy, only after the new one has its final name.
        limit, push = self.args.save_total_limit, self.args.push_to_hub
        self._staging, self.args.save_total_limit, self.args.push_to_hub = True, None, False
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._staging, self.args.save_total_limit, self.args.push_to_hub = False, limit, push
        self._save_generation_state(staged)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self._name_final_paths(staged, final)
            _publish(staged, final)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_local_main_process and staged.exists():  # this node has its own disk
            _publish(staged, final)
        if push:
            self._push_from_checkpoint(str(final))
        if self.args.should_save:
            rotate_checkpoints(str(run_dir), limit, self.state.best_model_checkpoint)

    def _name_final_paths(self, staged: Path, final: Path) -> None:
        """Write the final path of the best checkpoint to the saved state, where this checkpoint is the best."""
        if self.state.best_model_checkpoint == str(staged):
            self.state.best_model_checkpoint = str(final)
            self.state.save_to_json(str(staged / TRAINER_STATE))

    # The state that an exact resume needs ---------------------------------------------------------------------------

    def _save_generation_state(self, checkpoint: Path) -> None:
        generate_every = self.args.steps_per_generation * self.num_iterations
        mid_cycle = self._step % generate_every != 0
        checkpoint.mkdir(parents=True, exist_ok=True)
        torch.save(
            {
                "micro_step": self._step,
                "num_processes": self.accelerator.num_processes,
                "steps_per_generation": self.args.steps_per_generation,
                "num_iterations": self.num_iterations,
                "buffered_inputs": self._buffered_inputs if mid_cycle else None,
            },
            _generation_file(checkpoint, self.accelerator.process_index),
        )

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # resumed at the end, where transformers would make one more update
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        check_checkpoint(Path(resume_from_checkpoint))  # nothing of it is read before
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._skip_sampled_epochs(Path(checkpoint))
            self._load_generation_state(Path(checkpoint))

    def _skip_sampled_epochs(self, checkpoint: Path) -> None:
        state_file = checkpoint / TRAINER_STATE
        sampler = getattr(self, "_train_sampler", None)
        if state_file.exists() and sampler is not None and not self.args.ignore_data_skip:
            sampler.skip_epochs(int(TrainerState.load_from_json(str(state_file)).epoch or 0))

    def _load_generation_state(self, checkpoint: Path) -> None:
        file = _generation_file(checkpoint, self.accelerator.process_index)
        if not file.exists():  # a checkpoint of stock TRL, or of fewer processes
            return
        device = self.accelerator.device
        # several processes on CPU are on "cpu:0", which torch.load does not know
        state = torch.load(file, map_location="cpu" if device.type == "cpu" else device, weights_only=True)
        now = (self.accelerator.num_processes, self.args.steps_per_generation, self.num_iterations)
        if now != (state["num_processes"], state["steps_per_generation"], state["num_iterations"]):
            logger.warning(
                f"{file} was saved with another number of processes, steps_per_generation or num_iterations; the run "
                "goes on from its weights, with new completions."
            )
            return
        self._step = state["micro_step"]
        self._buffered_inputs = state["buffered_inputs"]

    def _get_train_sampler(self, dataset: Any = None) -> ReplayedRepeatSampler:
        stock: Any = super()._get_train_sampler(dataset)
        self._train_sampler = ReplayedRepeatSampler(
            stock.data_source,
            stock.mini_repeat_count,
            batch_size=stock.batch_size,
            repeat_count=stock.repeat_count,
            shuffle=stock.shuffle,
            seed=stock.seed,
        )
        return self._train_sampler


def _publish(staged: Path, final: Path) -> None:
    """Give a finished folder its name; one of the same name is moved aside first and goes with the staging folder."""
    if final.exists():
        final.rename(staged.with_name(f"{final.name}.replaced"))
    staged.rename(final)
    shutil.rmtree(staged.parent, ignore_errors=True)


def save_whole_model(trainer: GRPOTrainer, folder: Path) -> None:
    """Save the trainer's model to `folder`, which appears when it is complete; every rank must call it."""
    staged = folder.parent / STAGING_DIR / folder.name
    trainer.save_model(str(staged))
    trainer.accelerator.wait_for_everyone()
    if trainer.args.should_save:
        _publish(staged, folder)
    trainer.accelerator.wait_for_everyone()
