"""Files that a training leaves in its folder, and the checkpoint to go on from."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from transformers.trainer_utils import get_last_checkpoint

from tokenshift.trainer import DivergenceGRPOConfig
from tokenshift.trainer.resume.checkpoints import TRAINER_STATE

BASE_SCORE_FILE = "base_score.json"


SUMMARY_FILE = "summary.json"


LOG_HISTORY_FILE = "log_history.json"
"""All that was logged, a list of dicts as in the trainer's state."""


MODEL_DIR = "model"


NOT_ASKED = ("false", "0", "no", "none")
"""Words of `--resume_from_checkpoint` for no resume."""


def checkpoint_to_resume(args: DivergenceGRPOConfig, overwrite: bool) -> str | None:
    """The checkpoint to go on from, if any.

    Raises:
        ValueError: if the one named is not there, or an earlier run's would be mixed with this run's.
    """
    output_dir, asked = Path(str(args.output_dir)), str(args.resume_from_checkpoint or "false")
    last = get_last_checkpoint(str(output_dir)) if output_dir.is_dir() else None
    if asked.lower() in ("true", "1", "yes"):
        return last  # None: the run was stopped before its first checkpoint, and begins again
    if asked.lower() not in NOT_ASKED:
        if not (Path(asked) / TRAINER_STATE).is_file():
            raise ValueError(f"resume_from_checkpoint={asked!r} is not a checkpoint folder.")
        return asked
    if last is not None and not overwrite:
        raise ValueError(
            f"output_dir={args.output_dir!r} holds {Path(last).name} of an earlier run; go on with it by "
            "--resume_from_checkpoint true, delete it by --overwrite true, or choose another --output_dir."
        )
    return None


def delete_products(folder: Path, patterns: Iterable[str]) -> None:
    """Delete what an earlier run left in a folder, files and folders by the patterns of their names."""
    for path in (path for pattern in patterns for path in folder.glob(pattern)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
