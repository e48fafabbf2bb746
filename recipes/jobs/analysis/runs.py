"""Several trained models of one analysis: what is named on the command line, and a folder for each of them."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenshift.analysis.storage.file_names import file_name
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.recipes.command_line.given_options import mark_written, written_of
from tokenshift.recipes.command_line.output_folder import FolderOwner, open_folder
from tokenshift.recipes.inputs.contents import model_content
from tokenshift.recipes.inputs.models import ModelSource
from tokenshift.recipes.jobs.analysis.shift import ShiftJob

ARCHITECTURE = ("model_type", "num_hidden_layers", "hidden_size", "vocab_size")
"""Settings of a model's config that a training leaves as they are."""


@dataclass
class RunsJob(FolderOwner):
    """The analyses of several trained models, ready to begin.

    Attributes:
        args: The recipe's arguments.
        folder: Where the numbers over runs go.
        groups: The analyses of the RL models, by their recipe.
        sft: Those of the SFT controls.
    """

    args: Any
    folder: RunFolder
    groups: Mapping[str, Sequence[ShiftJob]]
    sft: Sequence[ShiftJob]

    @property
    def jobs(self) -> list[ShiftJob]:
        """The analyses of all models."""
        return [job for jobs in (*self.groups.values(), self.sft) for job in jobs]

    def close(self) -> None:
        """Let other runs use the folders."""
        for job in self.jobs:
            job.close()
        super().close()


def prepare_runs(
    args: Any,
    groups: Mapping[str, Sequence[str]],
    sft: Sequence[str],
    prepare_one: Callable[[Any, str], ShiftJob],
    settings_of: Callable[[ShiftJob], dict[str, Any]],
) -> RunsJob:
    """Check all models, and take the folders of all analyses.

    Args:
        args: The recipe's arguments.
        groups: Names of the RL models, by their recipe.
        sft: Names of the SFT controls.
        prepare_one: Checks a model from the arguments of its own analysis and the setting that names it, and opens no
            folder.
        settings_of: The settings that the rows of an analysis depend on.

    Raises:
        ValueError: For whatever is wrong, in one line.
    """
    jobs = {
        name: [prepare_one(_of_model(args, model), "rl_model") for model in models] for name, models in groups.items()
    }
    controls = [prepare_one(_of_model(args, model), "sft_models") for model in sft]
    job = RunsJob(args, RunFolder(Path(args.output_dir)), jobs, controls)
    contents = _check_alike(job.jobs)
    settings = {
        name: value
        for name, value in settings_of(job.jobs[0]).items()
        if name not in ("rl_model", "rl_model_content")  # models can be added later
    }
    try:
        open_folder(job, settings, contents)
        for one in job.jobs:
            open_folder(
                one, settings_of(one), sampled=one.most_tokens, scored=one.most_tokens, states=one.most_states_bytes
            )
    except BaseException:
        job.close()
        raise
    return job


def _of_model(args: Any, model: str) -> Any:
    """The arguments of one model's analysis, in a folder of its own."""
    one = copy.copy(args)
    one.rl_model = model
    one.output_dir = str(Path(args.output_dir) / "runs" / file_name(model))
    if (written := written_of(args)) is not None:
        values = {**written.values, "rl_model": [model], "sft_models": None, "output_dir": one.output_dir}
        mark_written([one], replace(written, values=values))
    return one


def _check_alike(jobs: Sequence[ShiftJob]) -> dict[str, Any]:
    """The content of each model by its name.

    Raises:
        ValueError: If two models are the same, or are not of one architecture and one base.
    """
    contents: dict[str, Any] = {}
    first = jobs[0].rl
    for job in jobs:
        content = model_content(job.rl)
        same = next((name for name, other in contents.items() if content is not None and other == content), None)
        if same is not None:
            raise ValueError(f"{job.rl.name!r} is the same model as {same!r}; another training is another run.")
        contents[job.rl.name] = content
        for what, values in _origins(first, job.rl).items():
            if values[0] != values[1]:
                raise ValueError(
                    f"{job.rl.name!r} has {what} {values[1]!r}, and {first.name!r} {values[0]!r}: they are not "
                    "trained from one base; give runs that are."
                )
    return contents


def _origins(first: ModelSource, other: ModelSource) -> dict[str, tuple[Any, Any]]:
    """Properties that two trainings of one base share: name -> the two models' values."""
    configs = [source.config.get_text_config() for source in (first, other)]
    values = {name: (getattr(configs[0], name, None), getattr(configs[1], name, None)) for name in ARCHITECTURE}
    if first.base is not None and other.base is not None:
        values["the base"] = (first.base, other.base)
    return values
