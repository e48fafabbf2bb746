"""Mistakes in the arguments of a reproduction that show before the slow imports; the job asks the same functions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenshift.analysis.registry import close_match
from tokenshift.analysis.storage.json_files import read_json
from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.recipes.command_line.config_files import CONFIGS, config_file
from tokenshift.recipes.command_line.early_values import EarlyArguments
from tokenshift.recipes.command_line.source_fields import constant
from tokenshift.recipes.jobs.reproduction.file import ScaleFile, read_scale
from tokenshift.recipes.jobs.reproduction.part_kinds import OPTIONAL

REPRODUCTION_FILE = constant("tokenshift.recipes.command_line.products", "REPRODUCTION_FILE")
SEEDS = [0, 1, 2]
"""The seeds where none are named."""


def scale_file(values: Any) -> tuple[Path, str]:
    """The file of a scale, and the scale's name as far as the arguments tell it.

    Args:
        values: the values of all options, as attributes.
    """
    if values.config is None:
        return CONFIGS / f"reproduce_{values.scale}.yaml", values.scale
    file = config_file(values.config, "reproduce_*")
    return file, file.stem.removeprefix("reproduce_")


def check_choices(seeds: Sequence[int], parallel: int, leave_out: Sequence[str] | None) -> None:
    """
    Args:
        seeds: seeds of the trainings.
        parallel: parts at once.
        leave_out: kinds of analyses that are not made.

    Raises:
        ValueError: for a wrong one, or an analysis that cannot be left out.
    """
    if len(seeds) < 2:
        raise ValueError(f"seeds={seeds} must name two or more; verdicts on training need three.")
    if wrong := [seed for seed in seeds if not 0 <= seed < 2**32]:
        raise ValueError(f"seeds has {wrong[0]}, which must be at least 0 and below 2**32.")
    if doubled := [seed for index, seed in enumerate(seeds) if seed in seeds[:index]]:
        raise ValueError(f"seeds has {doubled[0]} twice; a seed trained again is the same run.")
    if unknown := [kind for kind in leave_out or () if kind not in OPTIONAL]:
        hint = close_match(unknown[0], OPTIONAL) or "."
        raise ValueError(f"leave_out={unknown[0]!r} cannot be{hint} It takes {', '.join(OPTIONAL)}.")
    if parallel < 1:
        raise ValueError(f"parallel={parallel} must be at least 1.")


def choices(values: Any, scale: ScaleFile) -> tuple[list[int], int, list[str] | None]:
    """The seeds, the parts at once and what is left out: the command line's, the file's, or the defaults.

    Args:
        values: the values of all options, as attributes.
        scale: the scale's file.
    """
    seeds = next(given for given in (values.seeds, scale.seeds, SEEDS) if given is not None)
    parallel = next(given for given in (values.parallel, scale.parallel, 1) if given is not None)
    return seeds, parallel, scale.leave_out if values.leave_out is None else values.leave_out


def read_reproduction(given: str) -> dict[str, Any]:
    """The contents of the `reproduction.json` of other seeds, with its `seeds` and `settings`.

    Args:
        given: the file, or its folder.

    Raises:
        ValueError: if there is none.
    """
    path = user_path(given, "against")
    try:
        other: dict[str, Any] = read_json(path / REPRODUCTION_FILE if path.is_dir() else path, dict)
        list(other["seeds"]), other["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"against={given!r} has no {REPRODUCTION_FILE} of a reproduction.") from error
    return other


def check_reproduction(arguments: EarlyArguments) -> None:
    """Look at the arguments and the scale's file.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    values = arguments.values
    scale = read_scale(scale_file(values)[0])
    check_choices(*choices(values, scale))
    if values.against is not None and not values.dry_run:
        read_reproduction(values.against)
