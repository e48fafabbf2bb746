"""Checkpoints that appear whole or not at all, each with a manifest by which a later run sees damage.

Stock transformers writes a checkpoint's files in place, so a killed run can leave an incomplete one that looks like
the last, and it resumes from damaged files without a word where they can be read.
"""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from tokenshift.analysis.storage.checkpoints import TRAINER_STATE, checkpoint_step, checkpoints_of
from tokenshift.analysis.storage.disk import DiskFaultError, disk_fault
from tokenshift.analysis.storage.folder_lock import borrow_folder
from tokenshift.analysis.storage.main_process import on_main_process
from tokenshift.analysis.storage.manifest import write_manifest
from tokenshift.analysis.storage.pickles import check_checkpoint
from tokenshift.trainer.guard.errors import LostProcessError
from tokenshift.trainer.resume.disk_space import check_training_room
from tokenshift.trainer.resume.examination import (
    examine_everywhere,
    last_whole,
    leave_behind,
    named_checkpoint,
    newest_whole,
)
from tokenshift.trainer.resume.process_group import lost_process

logger = get_logger(__name__)

STAGING_DIR = ".incomplete"


class WholeCheckpointTrainer(Trainer):
    """A trainer of transformers or TRL whose checkpoints appear whole; training itself is untouched.

    A checkpoint is written to another folder and named when it is complete. `train` resumes only from a checkpoint
    that is as it was saved: with True, from the newest such one. While it trains, no other training can use its
    `output_dir`.
    """

    args: Any
    model: Any
    accelerator: Accelerator
    _staging = False

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train as transformers does, after a look at the folder, the checkpoint and the free space.

        Raises:
            ValueError: if another run uses `output_dir`, if the named checkpoint or all checkpoints are damaged, or if
                there is too little room for what the run will write.
            DiskFaultError: if the disk is full, or cannot be written, in the middle of the run.
            LostProcessError: if another process of the run has ended, or does not answer within `ddp_timeout`.
        """
        run_dir, where = Path(str(self.args.output_dir)), f"output_dir={self.args.output_dir!r}"
        give_back = on_main_process(lambda: borrow_folder(run_dir, "training", where))
        try:
            checkpoint = self._checkpoint_to_use(resume_from_checkpoint, run_dir)
            on_main_process(lambda: check_training_room(self, run_dir))
            return super().train(checkpoint, *args, **kwargs)
        except Exception as error:
            if isinstance(error, DiskFaultError):
                raise
            lost, fault = lost_process(error), disk_fault(error)
            if lost is None and fault is None:
                raise
            last = last_whole(run_dir)
            kept = "There is no checkpoint yet" if last is None else f"{last.name} is the last checkpoint"
            if lost is not None:
                raise LostProcessError(
                    f"{lost} {kept} in {where}; start the run again with resume_from_checkpoint=True "
                    "(--resume_from_checkpoint true), and it goes on from there."
                ) from error
            raise DiskFaultError(
                f"{where} cannot be written: {fault}. {kept}; when there is room again, resume_from_checkpoint=True "
                "(--resume_from_checkpoint true) goes on from there."
            ) from error
        finally:
            if give_back is not None:
                give_back()

    def _checkpoint_to_use(self, asked: Any, run_dir: Path) -> str | None:
        """The checkpoint that `resume_from_checkpoint` stands for, which is whole.

        Raises:
            DamagedFileError: if it is not, or none is.
            ValueError: if the last checkpoint is asked for, and there is none.
        """
        if not asked:
            return None
        point = newest_whole(run_dir) if asked is True else named_checkpoint(Path(asked))
        if point.checkpoint is None:
            raise ValueError(f"resume_from_checkpoint=True, but there is no checkpoint in {run_dir}.")
        for remark in point.remarks:
            logger.warning(remark)
        checkpoint = point.checkpoint
        if os.path.realpath(checkpoint.parent) == os.path.realpath(run_dir):
            later = on_main_process(lambda: leave_behind(checkpoint))
            if later:
                names = ", ".join(path.name for path in later)
                logger.warning(
                    f"The run goes on from {checkpoint.name}, and leaves {names} of its former course behind: each is "
                    "replaced when the run gets there, and resume_from_checkpoint=True passes over it until then."
                )
        return str(checkpoint)

    # Writing a checkpoint ----------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        run_dir: str = super()._get_output_dir(trial)
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
            self._save_more(staged)
        except Exception:
            shutil.rmtree(staged.parent, ignore_errors=True)  # which gives a full disk its room back
            raise
        finally:
            self._staging, self.args.save_total_limit, self.args.push_to_hub = False, limit, push
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self._name_final_paths(staged, final)
            publish(staged, final)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_local_main_process and staged.exists():  # this node has its own disk
            publish(staged, final)
        if push:
            self._push_from_checkpoint(str(final))
        if self.args.should_save:
            self._delete_old_checkpoints(run_dir)

    def _save_more(self, checkpoint: Path) -> None:
        """Write into an unfinished checkpoint what a subclass needs for its resume; every process calls it."""

    def _name_final_paths(self, staged: Path, final: Path) -> None:
        """Write the final path of the best checkpoint to the saved state, where this checkpoint is the best."""
        if self.state.best_model_checkpoint == str(staged):
            self.state.best_model_checkpoint = str(final)
            self.state.save_to_json(str(staged / TRAINER_STATE))

    def _delete_old_checkpoints(self, run_dir: Path) -> None:
        """Keep `save_total_limit` checkpoints.

        Those of more updates than the run has made go first: it went back behind them, or they are damaged. The newest
        of the others and the best are kept in any case.
        """
        limit, step = self.args.save_total_limit, self.state.global_step
        if limit is None or limit <= 0:
            return
        checkpoints = sorted(
            checkpoints_of(run_dir), key=lambda path: (checkpoint_step(path) <= step, checkpoint_step(path))
        )
        kept = {run_dir / f"{PREFIX_CHECKPOINT_DIR}-{step}"}
        if self.state.best_model_checkpoint is not None:
            kept.add(Path(self.state.best_model_checkpoint))
        excess = len(checkpoints) - max(limit, len(kept))
        for checkpoint in [path for path in checkpoints if path not in kept][: max(excess, 0)]:
            shutil.rmtree(checkpoint, ignore_errors=True)

    # Reading one ---------------------------------------------------------------------------------------------------

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        check_checkpoint(Path(resume_from_checkpoint))  # nothing of it is read before
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Warn as transformers does, but not of tied parameters, which the checkpoint has under another name."""
        names: dict[int, set[str]] = {}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), set()).add(name)
        missing = set(load_result.missing_keys)
        there = {name for shared in names.values() if not shared <= missing for name in shared}
        left = [name for name in load_result.missing_keys if name not in there]
        unexpected = load_result.unexpected_keys
        super()._issue_warnings_after_load(SimpleNamespace(missing_keys=left, unexpected_keys=unexpected))

    def _load_best_model(self) -> None:
        best = Path(str(self.state.best_model_checkpoint))
        fault = examine_everywhere(best).fault
        if fault is None:
            super()._load_best_model()
        else:
            logger.warning(
                f"The best checkpoint, {best}, is not loaded: {fault}. The model is that of the last update."
            )


def publish(staged: Path, final: Path) -> None:
    """Give a finished folder a manifest and its name; one of that name is moved aside first, and then deleted."""
    write_manifest(staged)
    if final.exists():
        final.rename(staged.with_name(f"{final.name}.replaced"))
    staged.rename(final)
    shutil.rmtree(staged.parent, ignore_errors=True)


def save_whole_model(trainer: Trainer, folder: Path, card: Path | None = None) -> None:
    """Save the trainer's model to `folder`, which appears when it is complete; every rank must call it.

    Args:
        trainer: The trainer.
        folder: The folder.
        card: A model card, of which the folder gets a copy.
    """
    staged = folder.parent / STAGING_DIR / folder.name
    trainer.save_model(str(staged))
    trainer.accelerator.wait_for_everyone()
    if trainer.args.should_save:
        if card is not None and card.is_file():
            shutil.copyfile(card, staged / card.name)
        publish(staged, folder)
    trainer.accelerator.wait_for_everyone()
