"""How shifts grow over the checkpoints of a run, along the last one's responses.

    python recipes/analyze_evolution.py                                          # pocket's checkpoints
    python recipes/analyze_evolution.py --base_model Qwen/Qwen2.5-7B --checkpoints 'out/checkpoint-*' \\
        --dataset_name problems.jsonl --output_dir outputs/evolution
    python recipes/analyze_evolution.py --base_model org/base --checkpoints org/rl@step100 org/rl@step200 org/rl@main

The last checkpoint answers the problems once; the base and each checkpoint are scored along those responses, and each
checkpoint answers for itself to be judged. `output_dir` gets `models/NAME/` (tables, responses), `evolution.json`,
`figures/` and `report.html`. Started again after a stop it goes on where it was.
"""

from tokenshift.recipes.command_line.start import start_script

if __name__ == "__main__":
    start_script(__file__)  # answers --help and wrong arguments before the imports below, which take seconds

import json
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path

from accelerate import PartialState

from tokenshift.analysis.divergence.vocabulary import shared_vocabulary
from tokenshift.analysis.sampling.responses import sample_trajectories
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.shift.evolution import accuracy, evolution_rows, evolution_statements
from tokenshift.analysis.shift.report import write_evolution_report
from tokenshift.analysis.storage.file_names import file_name
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.token_table.scored_run import score_to_table
from tokenshift.recipes.command_line.entry import run_guarded
from tokenshift.recipes.command_line.output_folder import model_content, open_folder
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.inputs.models import ModelSource, find_model
from tokenshift.recipes.jobs.analysis.shift import (
    ShiftArguments,
    ShiftJob,
    prepare_shift,
    row_settings,
)
from tokenshift.recipes.jobs.analysis.terminal import show_statements

LAST = "last"


@dataclass
class EvolutionArguments(ShiftArguments):
    """
    Parameters:
        checkpoints (`list[str]`):
            Folders, globs in quotes, or hub names with revisions, oldest first; what one glob finds is ordered by the
            number in its name.
        resamples (`int`):
            Of the bootstrap.
    """

    checkpoints: list[str] = field(
        default_factory=lambda: ["outputs/pocket/checkpoint-*"],
        metadata={"help": "Folders, globs or name@revision, oldest first."},
    )
    resamples: int = field(default=1000, metadata={"help": "Resamples of the bootstrap."})
    output_dir: str = field(default="outputs/pocket/evolution", metadata={"help": "Where results go."})


@dataclass
class EvolutionJob:
    """Attributes:
    shift: the analysis of the last checkpoint.
    sources: all checkpoints.
    """

    shift: ShiftJob
    sources: list[ModelSource]


def expand(checkpoints: list[str]) -> list[str]:
    """Names of the checkpoints, globs replaced by what they find.

    Raises:
        ValueError: if a glob finds nothing, or a checkpoint comes twice.
    """
    names: list[str] = []
    for name in checkpoints:
        if not any(sign in name for sign in "*?[") or Path(name).expanduser().is_dir():
            names.append(name)
            continue
        found = sorted((path for path in glob(str(Path(name).expanduser())) if Path(path).is_dir()), key=_number)
        if not found:
            raise ValueError(f"checkpoints={name!r} finds no folder.")
        names += found
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise ValueError(f"checkpoints names {doubled[0]!r} twice.")
    return names


def _number(path: str) -> tuple[int, str]:
    step = step_of(path)
    return (-1 if step is None else step), path


def step_of(name: str) -> int | None:
    """The last number in a checkpoint's name, its update; None without one."""
    found = re.findall(r"\d+", Path(name).name.rpartition("@")[2])
    return int(found[-1]) if found else None


def prepare(arguments: list[str] | None = None) -> EvolutionJob:
    """Parse, check, find the models, load the problems.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    args = parse_into((EvolutionArguments,), arguments)[0]
    names = expand(args.checkpoints)
    sources = [find_model("checkpoints", name) for name in names]
    args.rl_model = names[-1]
    shift = prepare_shift(args)
    for source in sources:
        try:
            shared_vocabulary(shift.base.tokenizer, source.tokenizer)
        except ValueError as error:
            raise ValueError(f"base_model={args.base_model!r} and {source.name!r}: {error}") from error
    settings = row_settings(shift, "resamples")
    settings["checkpoints_content"] = [model_content(source) for source in sources]
    open_folder(shift, settings)
    return EvolutionJob(shift, sources)


def run(job: EvolutionJob) -> None:
    """Sample, score each checkpoint, compare."""
    shift, state = job.shift, PartialState()
    names = [source.name for source in job.sources]
    fixed = _sampled(shift, shift.folder, LAST, job.sources[-1])
    folders = [RunFolder(shift.folder.path / "models" / file_name(name)) for name in names]
    own = []
    for source, folder in zip(job.sources, folders, strict=True):
        responses = fixed if source is job.sources[-1] else _sampled(shift, folder, "own", source)
        own.append(accuracy(responses, shift.args.resamples))
        score_to_table(
            folder,
            {LAST: fixed},
            shift.scorer(source),
            shift.metadata(rl_model=source.name, trajectories=f"those of {job.sources[-1].name}"),
            batch_tokens=shift.args.batch_tokens,
        )
    if state.is_main_process:
        steps = [step_of(name) for name in names]
        tables = [folder.table for folder in folders]
        rows = evolution_rows(_short(names), steps, tables, own, resamples=shift.args.resamples)
        write_whole(shift.folder.path / "evolution.json", json.dumps(rows, indent=1) + "\n")
        found = evolution_statements(rows)
        write_evolution_report(shift.folder, rows, found, shift.metadata())
        show_statements({"the last checkpoint's": found}, shift.folder, ("report.html", "evolution.json", "figures"))
    state.wait_for_everyone()
    shift.close()


def _short(names: list[str]) -> list[str]:
    """The names without their folders, where that tells them apart."""
    tails = [Path(name).name for name in names]
    return tails if len(set(tails)) == len(tails) else names


def _sampled(shift: ShiftJob, folder: RunFolder, kind: str, source: ModelSource) -> list[Trajectory]:
    return sample_trajectories(
        folder,
        kind,
        shift.prompts,
        shift.generator(source),
        shift.base.tokenizer,
        shift.judge,
        samples=shift.args.samples,
        batch_size=shift.args.batch_size,
    )


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 2 after a user's mistake; 130 after Ctrl-C."""
    return run_guarded(__file__, lambda: prepare(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
