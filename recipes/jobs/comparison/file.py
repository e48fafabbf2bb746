"""The YAML file of a comparison: which variants and seeds, judged how. Mistakes are named with their line."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenshift.analysis.comparison.outcomes import DEFAULT_OUTCOME
from tokenshift.analysis.storage.yaml_text import UnreadableYamlError, read_yaml
from tokenshift.analysis.token_table.measure import DEFAULT_MEASURE
from tokenshift.recipes.command_line.config_files import LAUNCH_CONFIGS
from tokenshift.recipes.jobs.analysis.evaluation import set_contents
from tokenshift.recipes.jobs.comparison.judging import read_evaluation, read_recovery, refuse_trained_on
from tokenshift.recipes.jobs.comparison.lined_yaml import LinedYaml
from tokenshift.recipes.jobs.comparison.schema import ComparisonFile, LaunchSettings, read_settings
from tokenshift.recipes.jobs.comparison.variants import Variant, read_variants, training_config
from tokenshift.trainer.plan.launch import written_processes


@dataclass(frozen=True)
class Launch:
    """The way a step is launched: by plain python, or by `accelerate launch` with a config file."""

    config_file: str | None = None
    num_processes: int = 1


@dataclass(frozen=True)
class Comparison:
    """The comparison that a file asks for.

    Attributes:
        path: The file.
        name: The name of the comparison, and of the W&B group.
        output_dir: Where results go.
        seeds: The seeds of the trainings: those of the discovery.
        baseline: The variant that the others are compared with.
        variants: Variants by name, in the file's order.
        evaluation: Arguments of `recipes/evaluate.py`.
        contents: Hashes of the evaluation's problems, by the names that its `settings.json` has for them.
        recovery: Arguments of `recipes/cross_sample.py`, without the models; None where it is off.
        launch: How each step is launched.
        parallel: Cells at once.
        keep_checkpoints: Whether a trained cell's checkpoints stay.
        replication_seeds: More seeds, which are never pooled with the others; none of them is among `seeds`.
        outcome: What variants are compared by, a name of `OUTCOMES`.
        measure: The measure of what training moved that comes first, a name of `SHIFT_MEASURES`.
        prompts: `system_prompt` and `prompt_template` of the evaluation and the recovery of variants that are asked
            otherwise than `evaluation` says, by the variant's name.
        prompted_contents: `contents` of these variants, by name.
        settings: What the file says, with the training config and the shipped variants spelled out: a file that says
            all by itself.
    """

    path: Path
    name: str
    output_dir: str
    seeds: list[int]
    baseline: str
    variants: dict[str, Variant]
    evaluation: dict[str, Any]
    contents: dict[str, str]
    recovery: dict[str, Any] | None
    launch: Launch
    parallel: int = 1
    keep_checkpoints: bool = False
    replication_seeds: list[int] = field(default_factory=list)
    outcome: str = DEFAULT_OUTCOME
    measure: str = DEFAULT_MEASURE
    prompts: dict[str, dict[str, Any]] = field(default_factory=dict)
    prompted_contents: dict[str, dict[str, str]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def distinguishing(self, name: str) -> dict[str, Any]:
        """The arguments that a variant sets otherwise than the baseline; for the baseline itself, all arguments in
        which some variant differs from it."""
        baseline = self.variants[self.baseline].resolved
        others = [self.variants[name]] if name != self.baseline else list(self.variants.values())
        differ = {key for other in others for key in other.resolved if other.resolved[key] != baseline.get(key)}
        arguments = self.variants[name].resolved
        return {key: arguments[key] for key in sorted(differ & arguments.keys())}


def read_comparison(path: Path) -> Comparison:
    """Read and check a comparison's file; nothing is loaded or launched.

    Raises:
        ValueError: for whatever is wrong, in one line that begins with the file's name and line.
    """
    if not path.is_file():
        raise ValueError(f"--config {str(path)!r} is not a file; recipes/configs/compare_pocket.yaml is one.")
    document = LinedYaml(path)
    settings = read_settings(document)
    launch = _launch(document, settings.launch)
    variants = read_variants(document, settings, launch.num_processes)
    evaluation, evaluated, sets = read_evaluation(document, settings.evaluation)
    prompted = {
        name: set_contents(
            read_evaluation(document, {**settings.evaluation, **prompts}, ("evaluation_prompts", name))[2]
        )
        for name, prompts in settings.evaluation_prompts.items()
    }
    refuse_trained_on(document, evaluated.datasets, sets, variants)
    return Comparison(
        path=path,
        name=settings.name,
        output_dir=settings.output_dir or f"outputs/{settings.name}",
        seeds=settings.seeds,
        baseline=settings.baseline,
        variants=variants,
        evaluation=evaluation,
        contents=set_contents(sets),
        recovery=read_recovery(document, settings.recovery, evaluated),
        launch=launch,
        parallel=settings.parallel,
        keep_checkpoints=settings.keep_checkpoints,
        replication_seeds=settings.replication_seeds,
        outcome=settings.outcome,
        measure=settings.measure,
        prompts=settings.evaluation_prompts,
        prompted_contents=prompted,
        settings=_spelled_out(document, settings, variants),
    )


def _spelled_out(document: LinedYaml, settings: ComparisonFile, variants: Mapping[str, Variant]) -> dict[str, Any]:
    """The settings of a file that needs no other file but what the names in it stand for."""
    overrides = {name: variant.overrides for name, variant in variants.items()}
    spelled = {"config": training_config(document, settings.config), "variants": overrides}
    return {name: value for name, value in {**settings.model_dump(), **spelled}.items() if value is not None}


def _launch(document: LinedYaml, settings: LaunchSettings | None) -> Launch:
    if settings is None:
        return Launch()
    position = ("launch", "config_file")
    file = document.file(position, settings.config_file, LAUNCH_CONFIGS)
    try:
        config = read_yaml(file)
    except UnreadableYamlError:
        config = None
    if not isinstance(config, dict):
        raise document.wrong(position, f"config_file={str(file)!r} is not an accelerate config.")
    try:
        written = written_processes(config, file)
    except ValueError as error:
        raise document.wrong(position, str(error)) from error
    return Launch(str(file), settings.num_processes or written)
