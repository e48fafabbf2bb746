"""From which checkpoint a training goes on."""

from pathlib import Path

from transformers import TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from tokenshift.analysis.storage.pickles import check_checkpoint
from tokenshift.trainer.resume.checkpoints import TRAINER_STATE

RESUME_WORDS = ("true", "1", "yes")
"""Values of `--resume_from_checkpoint` that ask for the last checkpoint."""

NO_RESUME_WORDS = ("false", "0", "no", "none")
"""Values of `--resume_from_checkpoint` that ask for no resume."""


def is_resume_wanted(args: TrainingArguments) -> bool:
    """Whether a resume is asked for, also where there is no checkpoint yet."""
    return str(args.resume_from_checkpoint or "false").lower() not in NO_RESUME_WORDS


def checkpoint_to_resume(args: TrainingArguments, overwrite: bool) -> str | None:
    """The checkpoint to go on from; None where training begins at its start.

    Args:
        args: The trainer's arguments, with `output_dir` and `resume_from_checkpoint`.
        overwrite: Whether an earlier run's checkpoints are going to be deleted.

    Raises:
        ValueError: If the named checkpoint is not there, if a pickle in the checkpoint could run something, or if an
            earlier run's checkpoints would be mixed with this run's.
    """
    output_dir = Path(str(args.output_dir))
    last = get_last_checkpoint(str(output_dir)) if output_dir.is_dir() else None
    if is_resume_wanted(args):
        wanted = str(args.resume_from_checkpoint)
        if wanted.lower() in RESUME_WORDS:
            if last is not None:
                check_checkpoint(Path(last))
            return last  # None: the run was stopped before its first checkpoint, and begins again
        if not (Path(wanted) / TRAINER_STATE).is_file():
            raise ValueError(f"resume_from_checkpoint={wanted!r} is not a checkpoint folder.")
        check_checkpoint(Path(wanted))
        return wanted
    if last is not None and not overwrite:
        raise ValueError(
            f"output_dir={args.output_dir!r} holds {Path(last).name} of an earlier run; go on with it by "
            "--resume_from_checkpoint true, delete it by --overwrite true, or choose another --output_dir."
        )
    return None
