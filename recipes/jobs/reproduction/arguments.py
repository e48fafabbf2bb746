"""Arguments of a reproduction, and the checks that come before anything is launched."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tokenshift.analysis.storage.json_files import read_json
from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.recipes.command_line.commands import COMMANDS
from tokenshift.recipes.command_line.early_check import check_words
from tokenshift.recipes.command_line.output_folder import FolderOwner, take_folder
from tokenshift.recipes.command_line.parser import parse_own_config
from tokenshift.recipes.command_line.products import REPRODUCTION_SETTINGS_FILE
from tokenshift.recipes.command_line.run_record import plain, without_secrets, write_record, written_words
from tokenshift.recipes.command_line.tracking import TrackedArguments
from tokenshift.recipes.jobs.reproduction.early import check_choices, choices, read_reproduction, scale_file
from tokenshift.recipes.jobs.reproduction.file import ScaleFile, read_scale
from tokenshift.recipes.jobs.reproduction.parts import (
    COMMAND_OF,
    COMPARISON_FILE,
    TRAININGS,
    Part,
    comparison_document,
    parts_of,
)

SCALES = ("pocket", "smollm2", "paper")
"""The shipped scales: `recipes/configs/reproduce_NAME.yaml`."""


@dataclass
class ReproduceArguments(TrackedArguments):
    """
    Parameters:
        scale (`str`):
            A shipped scale: `pocket`, `smollm2`, or `paper`, which needs a cluster.
        config (`str`, *optional*):
            YAML file of a scale of one's own, or the `config.yaml` of a reproduction.
        seeds (`list[int]`, *optional*):
            Seeds of the trainings, 0, 1 and 2 where neither this nor the file names any. Verdicts on training need
            three or more; seeds can be added later.
        output_dir (`str`, *optional*):
            Where results go; `outputs/reproduce_SCALE` when not given.
        parallel (`int`, *optional*):
            Trainings, and later analyses, at once; 1 where neither this nor the file says.
        dry_run (`bool`):
            Show the commands of all parts and what they take, and launch none.
        leave_out (`list[str]`, *optional*):
            Kinds of analyses that are not made: `shift`, `evolution`, `cross` or `robustness`.
        against (`str`, *optional*):
            The folder or `reproduction.json` of other seeds: statements on which the two differ are left open.
    """

    scale: str = field(default="pocket", metadata={"help": f"{', '.join(SCALES)}."})
    config: str | None = field(default=None, metadata={"help": "YAML file of a scale of your own."})
    seeds: list[int] | None = field(default=None, metadata={"help": "Seeds of the trainings; 0 1 2 by default."})
    output_dir: str | None = field(default=None, metadata={"help": "Where results go; outputs/reproduce_SCALE."})
    parallel: int | None = field(default=None, metadata={"help": "Trainings, and later analyses, at once; 1."})
    dry_run: bool = field(default=False, metadata={"help": "Show the commands and their cost; launch none."})
    leave_out: list[str] | None = field(
        default=None, metadata={"help": "Analyses to leave out: shift, evolution, cross, robustness."}
    )
    against: str | None = field(
        default=None, metadata={"help": "Folder of a reproduction with other seeds, to compare verdicts with."}
    )


@dataclass
class ReproduceJob(FolderOwner):
    """A reproduction ready to begin.

    Attributes:
        args: The arguments of the command line.
        name: The scale's name.
        scale: What its file says.
        folder: The output folder.
        parts: All parts, in an order in which each comes after those that it reads.
        seeds: The seeds of the trainings.
        parallel: Trainings, and later analyses, at once.
        other: What `reproduction.json` of other seeds holds, where verdicts are compared with it.
    """

    args: ReproduceArguments
    name: str
    scale: ScaleFile
    folder: Path
    parts: list[Part]
    seeds: list[int]
    parallel: int
    other: dict[str, Any] | None = None


def prepare(arguments: list[str] | None = None) -> ReproduceJob:
    """Parse the arguments, check the scale's file and the words of every part, and lock the output folder.

    Args:
        arguments: The words of the command line; those of `sys.argv` when None.

    Raises:
        ValueError: For whatever is wrong, in one line.
    """
    args = _parse(arguments)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("A reproduction launches its parts itself: start it with plain python.")
    file, name = scale_file(args)
    scale = read_scale(file)
    name = scale.scale or name
    seeds, parallel, args.leave_out = choices(args, scale)
    check_choices(seeds, parallel, args.leave_out)
    folder = user_path(args.output_dir or f"outputs/reproduce_{name}", "output_dir")
    parts = [part for part in parts_of(scale, folder, seeds, parallel) if part.kind not in (args.leave_out or ())]
    job = ReproduceJob(args, name, scale, folder, parts, seeds, parallel)
    checked = {(part.kind, part.settings.get("draws"), part.arms, part.benchmark): part for part in job.parts}
    for part in checked.values():  # the others differ by their seeds
        if part.kind != TRAININGS:
            try:
                check_words(COMMANDS[COMMAND_OF[part.kind]], part.words())
            except ValueError as error:
                raise ValueError(f"{file.name}, {part.kind}: {error}") from error
    if args.dry_run:
        return job
    if scale.gpus:
        _check_gpus(name, scale)
    if args.against is not None:
        job.other = read_other(args.against, job)
    where = f"output_dir={str(folder)!r}"
    job.lock = take_folder(folder, "reproduction", where, lambda: _check_settings(job, where))
    document = comparison_document(scale, seeds)
    write_whole(folder / COMPARISON_FILE, yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return job


def _parse(arguments: list[str] | None) -> ReproduceArguments:
    args = parse_own_config(ReproduceArguments, arguments)
    if args.scale not in SCALES:
        raise ValueError(f"scale={args.scale!r} is not known; choose one of {', '.join(SCALES)}, or give --config.")
    if args.config is not None and args.scale != SCALES[0]:
        raise ValueError(f"scale={args.scale!r} has no effect beside config={args.config!r}; leave one of them out.")
    for name in ("against", "report_to"):
        if args.dry_run and getattr(args, name):
            raise ValueError(f"{name}={getattr(args, name)!r} has no effect beside dry_run; leave one of them out.")
    parsed: ReproduceArguments = args
    return parsed


def _check_gpus(name: str, scale: ScaleFile) -> None:
    import torch  # here: other scales need none

    count = torch.cuda.device_count()
    if count < scale.gpus:
        raise ValueError(
            f"scale={name!r} needs {scale.gpus} GPUs of 80 GB, and this machine has {count}; --dry_run shows its "
            "commands and what it needs, --scale pocket runs on 2 CPU cores."
        )


def read_other(given: str, job: ReproduceJob) -> dict[str, Any]:
    """The contents of the `reproduction.json` of other seeds.

    Args:
        given: The file, or its folder.
        job: The reproduction that it is held against.

    Raises:
        ValueError: If there is none, it was made with other settings, or it shares a seed with this one.
    """
    other = read_reproduction(given)
    if difference := first_difference(other["settings"], recorded_settings(job)):
        raise ValueError(f"against={given!r} was made with {difference}; compare runs of the same settings.")
    if shared := sorted(set(other["seeds"]) & set(job.seeds)):
        raise ValueError(f"against={given!r} has the seed {shared[0]} too; seeds that are compared must differ.")
    return other


COST_SETTINGS = ("gpus", "needs", "minutes", "minutes_from")
"""Settings of a scale on which no number depends."""


COMMAND_LINE = ("scale", "seeds", "leave_out", "parallel")
"""Settings of a record that are options of the command line, and may differ when a reproduction is gone on with."""

LATER_SETTINGS = ("cross_arms", "cross_sets", "prompts")
"""Settings that reproductions made before do not have, which were made as these are where nothing is given."""


def recorded_settings(job: ReproduceJob) -> dict[str, Any]:
    """The settings that all parts depend on; seeds can be added later."""
    scale = job.scale
    default = {name for name in LATER_SETTINGS if getattr(scale, name) == ScaleFile.model_fields[name].default}
    settings = scale.model_dump(exclude={*COST_SETTINGS, *COMMAND_LINE, *default})
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain


def first_difference(before: Any, now: Any, name: str = "") -> str | None:
    """The first setting that differs, in words; None where there is none."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            inner = f"{name}.{key}" if name else str(key)
            if difference := first_difference(before.get(key), now.get(key), inner):
                return difference
        return None
    return None if before == now else f"{name}={before!r}, not {now!r}"


def _check_settings(job: ReproduceJob, where: str) -> None:
    """Refuse a folder of other settings, and write this reproduction's into a new one."""
    file, settings = job.folder / REPRODUCTION_SETTINGS_FILE, recorded_settings(job)
    if file.exists():
        try:
            before = read_json(file)
        except ValueError as error:
            raise ValueError(f"{where} has a damaged {file.name}; choose another --output_dir.") from error
        if difference := first_difference(before, settings):
            raise ValueError(f"{where} holds a reproduction with {difference}; choose another --output_dir.")
    goes_on = file.exists()
    write_whole(file, json.dumps(settings, indent=1, sort_keys=True) + "\n")
    _record(job, goes_on=goes_on)


def settings_of(job: ReproduceJob) -> dict[str, Any]:
    """The settings of a reproduction: the file of its scale with the options of its command line."""
    options = {"scale": job.name, "seeds": job.seeds, "leave_out": job.args.leave_out, "parallel": job.parallel}
    return job.scale.model_dump() | options


def _record(job: ReproduceJob, *, goes_on: bool) -> None:
    """Write the reproduction's `config.yaml`."""
    write_record(
        job.folder,
        "reproduce",
        plain(without_secrets(settings_of(job))),
        words=written_words((job.args,)),
        goes_on=goes_on,
    )
