"""From which checkpoint a training goes on."""

from pathlib import Path

from accelerate.logging import get_logger
from transformers import TrainingArguments

from tokenshift.analysis.storage.main_process import on_main_process
from tokenshift.analysis.storage.pickles import check_checkpoint
from tokenshift.recipes.command_line.earlier_runs import (
    RESUME_WORDS,
    check_named_checkpoint,
    is_resume_wanted,
    refuse_mixture,
)
from tokenshift.trainer.resume.examination import (
    ResumePoint,
    named_checkpoint,
    newest_whole,
)

logger = get_logger(__name__)


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
        if not overwrite:
            on_main_process(lambda: refuse_mixture(str(args.output_dir)))
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
    on_main_process(lambda: check_named_checkpoint(wanted))
    return named_checkpoint(Path(wanted))
