"""Arguments of the analysis over checkpoints, its preparation, and the scoring of every checkpoint."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState

from tokenshift.analysis.divergence.vocabulary import shared_vocabulary
from tokenshift.analysis.sampling.responses import sample_trajectories
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.shift.evolution import response_accuracy
from tokenshift.analysis.storage.file_names import file_name
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.token_table.scored_run import STATES, score_to_table
from tokenshift.recipes.command_line.output_folder import open_folder
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.command_line.tracking import TrackedArguments
from tokenshift.recipes.inputs.contents import model_content
from tokenshift.recipes.inputs.models import ModelSource, find_model
from tokenshift.recipes.inputs.sampling import check_device_map
from tokenshift.recipes.jobs.analysis.checkpoint_names import checkpoint_names
from tokenshift.recipes.jobs.analysis.dry_run import plan_evolution
from tokenshift.recipes.jobs.analysis.idle_options import evolution_without_effect
from tokenshift.recipes.jobs.analysis.planned import PlannedAnalysis
from tokenshift.recipes.jobs.analysis.shift import MeasuredShiftArguments, ShiftJob, prepare_shift, row_settings

LAST_RESPONSES, OWN_RESPONSES = "last", "own"
"""Names of the trajectories' files: the last checkpoint's responses, and those of another checkpoint."""


@dataclass
class EvolutionArguments(TrackedArguments, MeasuredShiftArguments):
    """
    Parameters:
        checkpoints (`list[str]`):
            Folders, globs in quotes, or hub names with revisions, oldest first; the folders that a glob finds are
            ordered by the number in their names.
        resamples (`int`):
            Number of resamples of the bootstrap.
    """

    checkpoints: list[str] = field(
        default_factory=lambda: ["outputs/pocket/checkpoint-*"],
        metadata={"help": "Folders, globs or name@revision, oldest first."},
    )
    resamples: int = field(default=1000, metadata={"help": "Resamples of the bootstrap."})
    output_dir: str = field(default="outputs/pocket/evolution", metadata={"help": "Where results go."})

    def without_effect(self, values: Any) -> dict[str, str]:
        """Options that have no effect beside these values of all options, with the reason and what to do."""
        return super().without_effect(values) | evolution_without_effect(values)


@dataclass
class EvolutionJob:
    """An analysis over checkpoints, ready to begin.

    Attributes:
        shift: the analysis of the last checkpoint.
        sources: all checkpoints, oldest first.
    """

    shift: ShiftJob
    sources: list[ModelSource]

    def close(self) -> None:
        """Let other runs use the folder."""
        self.shift.close()


def prepare(arguments: list[str] | None = None) -> EvolutionJob | PlannedAnalysis:
    """Parse, check, find the models, load the problems; or plan alone.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    args = parse_into((EvolutionArguments,), arguments)[0]
    names = checkpoint_names(args.checkpoints)
    if args.dry_run:
        return plan_evolution(args, names)
    sources = [find_model("checkpoints", name, trust_remote_code=args.trust_remote_code) for name in names]
    args.rl_model = names[-1]
    shift = prepare_shift(args)
    check_device_map(args, sources)
    for source in sources:
        try:
            shared_vocabulary(shift.base.tokenizer, source.tokenizer)
        except ValueError as error:
            raise ValueError(f"base_model={args.base_model!r} and {source.name!r}: {error}") from error
    settings = row_settings(shift, "resamples")
    settings["checkpoints_content"] = [model_content(source) for source in sources]
    tokens = len(sources) * shift.most_tokens
    states = shift.states_bytes(shift.most_tokens // 2)
    open_folder(shift, settings, sampled=tokens, scored=tokens, states=states)
    return EvolutionJob(shift, sources)


def score_checkpoints(job: EvolutionJob) -> tuple[list[Path], list[dict[str, float] | None]]:
    """Sample and score what is not on disk yet: all checkpoints along the last one's responses, and their own.

    Args:
        job: the analysis.

    Returns:
        For each checkpoint the folder of its per-token table, and the accuracy of its own responses.
    """
    shift, last = job.shift, job.sources[-1]
    fixed = _responses(shift, shift.folder, LAST_RESPONSES, last)
    tables, accuracies = [], []
    for source in job.sources:
        folder = RunFolder(shift.folder.path / "models" / file_name(source.name))
        responses = fixed if source is last else _responses(shift, folder, OWN_RESPONSES, source)
        accuracies.append(response_accuracy(responses, shift.args.resamples))
        score_to_table(
            folder,
            {LAST_RESPONSES: fixed},
            shift.scorer(source),
            shift.metadata(rl_model=source.name, trajectories=f"those of {last.name}"),
            batch_tokens=shift.args.batch_tokens,
        )
        tables.append(folder.table)
    if PartialState().is_main_process:
        shift.folder.discard(STATES)
    return tables, accuracies


def _responses(shift: ShiftJob, folder: RunFolder, kind: str, source: ModelSource) -> list[Trajectory]:
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
