"""Arguments of a comparison of variants, and the checks that come before anything is launched."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tokenshift.analysis.comparison.outcomes import DEFAULT_OUTCOME, OUTCOMES
from tokenshift.analysis.storage.user_paths import user_path
from tokenshift.analysis.token_table.measure import check_measure
from tokenshift.recipes.command_line.config_files import CONFIGS, config_file
from tokenshift.recipes.command_line.output_folder import FolderOwner, take_folder
from tokenshift.recipes.command_line.parser import parse_own_config
from tokenshift.recipes.command_line.products import CELL_FILE
from tokenshift.recipes.command_line.run_record import plain, without_secrets, write_record, written_words
from tokenshift.recipes.command_line.tracking import TrackedArguments
from tokenshift.recipes.jobs.comparison.cells import TrainedCell, cells_of, changed_setting, forget
from tokenshift.recipes.jobs.comparison.early import check_effect, check_outcome
from tokenshift.recipes.jobs.comparison.file import Comparison, read_comparison
from tokenshift.recipes.jobs.comparison.plan import Plan, make_plan


@dataclass
class CompareArguments(TrackedArguments):
    """
    Parameters:
        config (`str`):
            YAML file of the comparison.
        output_dir (`str`, *optional*), parallel (`int`, *optional*):
            In place of the file's.
        dry_run (`bool`):
            Show the cells, and what they will take by a measured step, and launch none.
        overwrite (`bool`):
            Make cells anew that are there with other settings.
        outcome (`str`, *optional*):
            What variants are compared by, in place of the file's.
        measure (`str`, *optional*):
            The measure of what training moved that comes first, `js_top_p` or `js`, in place of the file's.
        plan (`str`, *optional*):
            Say how many seeds show a difference of `effect`, and launch none: by a former comparison (its folder or
            its `comparison.json`), or by the standard deviation of a difference over seeds, in points.
        effect (`float`, *optional*):
            The true difference of the plan, in points.
    """

    config: str = field(
        default=str(CONFIGS / "compare_pocket.yaml"), metadata={"help": "YAML file of the comparison."}
    )
    output_dir: str | None = field(default=None, metadata={"help": "Where results go; the file's when not given."})
    parallel: int | None = field(default=None, metadata={"help": "Cells at once; the file's when not given."})
    dry_run: bool = field(default=False, metadata={"help": "Show the cells and their cost by a measured step."})
    overwrite: bool = field(default=False, metadata={"help": "Make cells with other settings anew."})
    outcome: str | None = field(
        default=None, metadata={"help": f"Compare by {', '.join(OUTCOMES)}; by the file's when not given."}
    )
    measure: str | None = field(
        default=None,
        metadata={"help": "Show what moved by js_top_p (as published) or js; by the file's when not given."},
    )
    plan: str | None = field(
        default=None,
        metadata={"help": "Say how many seeds show --effect: a former comparison's folder, or a spread in points."},
    )
    effect: float | None = field(default=None, metadata={"help": "The true difference of --plan, in points."})


@dataclass
class CompareJob(FolderOwner):
    """A comparison ready to begin.

    Attributes:
        args: The arguments of the command line.
        comparison: The comparison that the file describes.
        folder: The output folder.
        cells: All cells, in the order in which they are run.
    """

    args: CompareArguments
    comparison: Comparison
    folder: Path
    cells: list[TrainedCell]


@dataclass
class PlanJob(FolderOwner):
    """A plan ready to be shown; it has no output folder.

    Attributes:
        plan: The plan.
    """

    plan: Plan


def prepare_plan_or_comparison(arguments: list[str] | None = None) -> PlanJob | CompareJob:
    """The plan where the arguments ask for one, else the comparison of `prepare`.

    Args:
        arguments: The words of the command line; those of `sys.argv` when None.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    args = _parse(arguments)
    return _comparison(args) if args.plan is None else _plan(args)


def prepare(arguments: list[str] | None = None) -> CompareJob:
    """Parse the arguments, check the file down to the arguments of every training, and lock the output folder.

    Args:
        arguments: The words of the command line; those of `sys.argv` when None.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    return _comparison(_parse(arguments))


def _parse(arguments: list[str] | None) -> CompareArguments:
    args = parse_own_config(CompareArguments, arguments)
    check_outcome(args.outcome)
    if args.measure is not None:
        check_measure(args.measure)
    if args.plan is None and args.effect is not None:
        raise ValueError(f"effect={args.effect:g} has no effect without plan; give --plan, or leave it out.")
    return args


def _plan(args: CompareArguments) -> PlanJob:
    """The plan that the arguments ask for.

    Raises:
        ValueError: for an argument without effect on a plan, an effect that is missing or is not above 0, or a pilot
            that cannot be read.
    """
    defaults = CompareArguments()
    for name in ("config", "output_dir", "parallel", "dry_run", "overwrite", "measure", "report_to"):
        value = getattr(args, name)
        if value != getattr(defaults, name):
            raise ValueError(f"{name}={value!r} has no effect: plan launches nothing; leave one of them out.")
    return PlanJob(make_plan(str(args.plan), check_effect(args.plan, args.effect), args.outcome or DEFAULT_OUTCOME))


def _comparison(args: CompareArguments) -> CompareJob:
    """The comparison that the arguments ask for, its file checked and its folder locked."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "A comparison launches its trainings itself: start it with plain python, and name the accelerate config "
            "under launch in its file."
        )
    if args.dry_run and args.overwrite:
        raise ValueError("overwrite=True has no effect: dry_run makes no cell; leave one of them out.")
    if args.dry_run and args.report_to:
        raise ValueError(f"report_to={args.report_to!r} has no effect: dry_run has no result; leave one of them out.")
    comparison = read_comparison(config_file(args.config, "compare_*"))
    parallel = comparison.parallel if args.parallel is None else args.parallel
    if parallel < 1:
        raise ValueError(f"parallel={parallel} must be at least 1.")
    comparison = replace(
        comparison,
        parallel=parallel,
        outcome=args.outcome or comparison.outcome,
        measure=args.measure or comparison.measure,
    )
    folder = user_path(args.output_dir or comparison.output_dir, "output_dir")
    job = CompareJob(args, comparison, folder, cells_of(comparison, folder))
    if not args.dry_run:
        _open(job)
    return job


def _open(job: CompareJob) -> None:
    """Lock the folder. Cells with the same settings are kept; others are refused, or deleted with `overwrite`.

    Raises:
        ValueError: if cells are there with other settings, or the folder is in use or cannot be written.
    """
    where = f"output_dir={str(job.folder)!r}"

    def check_and_record() -> None:
        _check_cells(job, where)
        begun = any(cell.folder.exists() for cell in job.cells)
        _record(job, goes_on=begun)

    job.lock = take_folder(job.folder, "comparison", where, check_and_record)


def settings_of(job: CompareJob) -> dict[str, Any]:
    """The settings of a comparison: its file's, with what the command line says in place of them."""
    in_place = {name: getattr(job.comparison, name) for name in ("parallel", "outcome", "measure")}
    return {**job.comparison.settings, "output_dir": str(job.folder), **in_place}


def _record(job: CompareJob, *, goes_on: bool) -> None:
    """Write the comparison's `config.yaml`."""
    comparison = job.comparison
    models = {variant.base_model: variant.recipe.dataset_name for variant in comparison.variants.values()}
    write_record(
        job.folder,
        "compare",
        plain(without_secrets(settings_of(job))),
        words=written_words((job.args,)),
        goes_on=goes_on,
        facts={"trained_on": models, "evaluated_on": comparison.contents},
    )


def _check_cells(job: CompareJob, where: str) -> None:
    """Refuse cells of others and, without `overwrite`, cells with other settings; with it, delete the latter."""
    changed = []
    for cell in job.cells:
        if _is_foreign(cell):
            raise ValueError(f"{where} has a cells/{cell.name} that no comparison made; choose another --output_dir.")
        change = changed_setting(cell, job.comparison)
        if change is not None and not job.args.overwrite:
            raise ValueError(
                f"{where}: the {change[0].name} of the cell {cell.name} was made with {change[1]}; --overwrite true "
                "makes such cells anew, or choose another --output_dir."
            )
        changed += [cell] if change is not None else []
    for cell in changed:  # after all cells were checked
        while (change := changed_setting(cell, job.comparison)) is not None:
            forget(cell, change[0])


def _is_foreign(cell: TrainedCell) -> bool:
    """Whether a cell's folder has files but no record, the first file that a comparison writes."""
    if not cell.folder.exists() or (cell.folder / CELL_FILE).is_file():
        return False
    return any(path.suffix != ".partial" for path in cell.folder.iterdir())
