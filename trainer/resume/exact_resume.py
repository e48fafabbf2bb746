"""Checkpoints from which a GRPO run resumes as if it had never stopped.

Stock TRL 1.16 resumes exactly only at a generation boundary of the first epoch, since it saves neither the buffered
completions nor the micro-step, and does not replay the sampler's epochs.
"""

from pathlib import Path
from typing import Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import send_to_device
from transformers import TrainerState
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from tokenshift.analysis.storage.checkpoints import TRAINER_STATE
from tokenshift.trainer.resume.checkpoints import WholeCheckpointTrainer

logger = get_logger(__name__)


class ReplayedRepeatSampler(RepeatSampler):
    """TRL's sampler, which can begin at a later epoch with the order that an uninterrupted run has there."""

    def skip_epochs(self, epochs: int) -> None:
        """Draw and discard the permutations of `epochs` epochs."""
        if self.shuffle:
            for _ in range(epochs):
                torch.randperm(self.num_samples, generator=self.generator)


def _generation_file(checkpoint: Path, rank: int) -> Path:
    return checkpoint / f"generation_state_{rank}.pt"


class ResumableGRPOTrainer(WholeCheckpointTrainer, GRPOTrainer):
    """[`~trl.GRPOTrainer`] with whole checkpoints and exact resume; training itself is untouched."""

    on_host: tuple[str, ...] = ()
    """Keys of a generation's tensors that stay in host memory."""

    # The state that an exact resume needs ---------------------------------------------------------------------------

    @property
    def _is_inside_generation(self) -> bool:
        """Whether there are micro-steps left to make on the buffered completions."""
        return bool(self._step % (self.args.steps_per_generation * self.num_iterations))

    def _save_more(self, checkpoint: Path) -> None:
        checkpoint.mkdir(parents=True, exist_ok=True)
        torch.save(
            {
                "micro_step": self._step,
                "num_processes": self.accelerator.num_processes,
                "steps_per_generation": self.args.steps_per_generation,
                "num_iterations": self.num_iterations,
                "buffered_inputs": self._buffered_inputs if self._is_inside_generation else None,
            },
            _generation_file(checkpoint, self.accelerator.process_index),
        )

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # resumed at the end, where transformers would make one more update
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

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
        # several processes on CPU are on "cpu:0", which torch.load does not know
        state = torch.load(file, map_location="cpu", weights_only=True)
        now = (self.accelerator.num_processes, self.args.steps_per_generation, self.num_iterations)
        if now != (state["num_processes"], state["steps_per_generation"], state["num_iterations"]):
            logger.warning(
                f"{file} was saved with another number of processes, steps_per_generation or num_iterations; the run "
                "goes on from its weights, with new completions."
            )
            return
        self._step = state["micro_step"]
        device, buffered = self.accelerator.device, state["buffered_inputs"]
        if buffered is not None and device.type != "cpu":
            buffered = send_to_device(buffered, device, skip_keys=list(self.on_host))
        self._buffered_inputs = buffered

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
