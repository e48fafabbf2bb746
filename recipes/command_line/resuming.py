"""From which checkpoint a training goes on."""

from pathlib import Path

from accelerate.logging import get_logger
from transformers import TrainingArguments

from tokenshift.analysis.storage.main_process import on_main_process
from tokenshift.analysis.storage.pickles import check_checkpoint
from tokenshift.trainer.resume.examination import (
    ResumePoint,
    checkpoints_of,
    named_checkpoint,
    newest_whole,
)

logger = get_logger(__name__)

RESUME_WORDS = ("true", "1", "yes")
"""Values of `--resume_from_checkpoint` that ask for the newest whole checkpoint."""

NO_RESUME_WORDS = ("false", "0", "no", "none")
"""Values of `--resume_from_checkpoint` that ask for no resume."""


def is_resume_wanted(args: TrainingArguments) -> bool:
    """Whether a resume is asked for, also where there is no checkpoint yet."""
    return str(args.resume_from_checkpoint or "false").lower() not in NO_RESUME_WORDS


def checkpoint_to_resume(args: TrainingArguments, overwrite: bool, tell: bool = True) -> str | None:
    """The checkpoint to go on from, which is whole; None where training begins at its start.

    Every process must call it, and all get the same.

    Args:
        args: The trainer's arguments, with `output_dir` and `resume_from_checkpoint`.
        overwrite: Whether an earlier run's checkpoints are going to be deleted.
        tell: Whether the user is told of checkpoints that are passed over, or cannot be checked.

    Raises:
        ValueError: If the named checkpoint is not there or damaged, if none is whole, if a pickle in it could run
            something, or if an earlier run's checkpoints would be mixed with this run's.
    """
    output_dir = Path(str(args.output_dir))
    if not is_resume_wanted(args):
        on_main_process(lambda: _refuse_mixture(output_dir, args, overwrite))
        return None
    wanted = str(args.resume_from_checkpoint)
    point = newest_whole(output_dir) if wanted.lower() in RESUME_WORDS else _named(wanted)
    for remark in point.remarks if tell else ():
        logger.warning(remark)
    if point.checkpoint is None:
        return None  # stopped before its first checkpoint
    check_checkpoint(point.checkpoint)
    return str(point.checkpoint)


def _named(wanted: str) -> ResumePoint:
    def look() -> None:
        folder = Path(wanted)
        if not folder.is_dir() or not any(folder.glob("*")):
            raise ValueError(f"resume_from_checkpoint={wanted!r} is not a checkpoint folder.")

    on_main_process(look)
    return named_checkpoint(Path(wanted))


def _refuse_mixture(output_dir: Path, args: TrainingArguments, overwrite: bool) -> None:
    checkpoints = checkpoints_of(output_dir)
    if checkpoints and not overwrite:
        raise ValueError(
            f"output_dir={args.output_dir!r} holds {checkpoints[-1].name} of an earlier run; go on with it by "
            "--resume_from_checkpoint true, delete it by --overwrite true, or choose another --output_dir."
        )
