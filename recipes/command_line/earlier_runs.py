"""Earlier runs in an output folder: whether a training goes on with one, and what is refused beside one.

Nothing heavy is imported: the same is asked before the slow imports and after them.
"""

from pathlib import Path
from typing import Any

from tokenshift.analysis.storage.checkpoints import checkpoints_of
from tokenshift.analysis.storage.folder_lock import HOLDER_FILE
from tokenshift.analysis.storage.json_files import read_json
from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.recipes.command_line.source_fields import constant

SETTINGS_FILE = constant("tokenshift.recipes.command_line.products", "SETTINGS_FILE")

RESUME_WORDS = ("true", "1", "yes")
"""Values of `--resume_from_checkpoint` that ask for the newest whole checkpoint."""

NO_RESUME_WORDS = ("false", "0", "no", "none")
"""Values of `--resume_from_checkpoint` that ask for no resume."""


def is_resume_wanted(values: Any) -> bool:
    """Whether a resume is asked for, also where there is no checkpoint yet.

    Args:
        values: The values of all options, as attributes.
    """
    return str(values.resume_from_checkpoint or "false").lower() not in NO_RESUME_WORDS


def check_named_checkpoint(wanted: str) -> None:
    """
    Raises:
        ValueError: If a checkpoint that is named is no folder, or an empty one.
    """
    folder = Path(wanted)
    if not folder.is_dir() or not any(folder.glob("*")):
        raise ValueError(f"resume_from_checkpoint={wanted!r} is not a checkpoint folder.")


def refuse_mixture(output_dir: str) -> None:
    """
    Args:
        output_dir: The folder of a run that neither goes on nor deletes what is there.

    Raises:
        ValueError: If an earlier run's checkpoints are in it.
    """
    if checkpoints := checkpoints_of(user_path(output_dir, "output_dir")):
        raise ValueError(
            f"output_dir={output_dir!r} holds {checkpoints[-1].name} of an earlier run; go on with it by "
            "--resume_from_checkpoint true, delete it by --overwrite true, or choose another --output_dir."
        )


def check_earlier_run(values: Any) -> None:
    """Look at what a training would go on with, or mix with.

    Args:
        values: The values of all options, as attributes.

    Raises:
        ValueError: If the checkpoint that is named is not there, or an earlier run's checkpoints are in the way.
    """
    wanted = str(values.resume_from_checkpoint)
    if not is_resume_wanted(values):
        if not values.overwrite and values.output_dir and not _may_be_held(values.output_dir):
            refuse_mixture(values.output_dir)
    elif wanted.lower() not in RESUME_WORDS:
        check_named_checkpoint(wanted)


def _may_be_held(output_dir: str) -> bool:
    """Whether another run may be at work in a folder, which is then told before all else, after the imports."""
    return (user_path(output_dir, "output_dir") / HOLDER_FILE).exists()


def check_settings_file(output_dir: str, overwrite: bool) -> None:
    """
    Args:
        output_dir: the folder of an analysis.
        overwrite: whether what is in it is going to be deleted.

    Raises:
        ValueError: if there is an earlier analysis whose settings cannot be read.
    """
    file = user_path(output_dir, "output_dir") / SETTINGS_FILE
    if not file.is_file() or overwrite:
        return
    try:
        read_json(file, dict)
    except ValueError as error:
        raise ValueError(
            f"output_dir={output_dir!r} has a damaged {SETTINGS_FILE}; delete the analysis by --overwrite true."
        ) from error
