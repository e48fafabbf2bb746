"""The variants of a comparison: a training config with overrides, checked down to every argument of a training."""

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from trl import ModelConfig

from tokenshift.analysis.registry import close_match
from tokenshift.analysis.secrets import hide_secrets
from tokenshift.analysis.storage.yaml_text import UnreadableYamlError, read_yaml
from tokenshift.recipes.command_line.commands import COMMANDS
from tokenshift.recipes.command_line.config_files import CONFIGS, RECORD
from tokenshift.recipes.command_line.given_options import GIVEN, reasons_without_effect, refuse_without_effect
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.inputs.verification_arguments import VERIFICATION_LIMITS
from tokenshift.recipes.jobs.comparison.lined_yaml import LinedYaml, Position, short_repr
from tokenshift.recipes.jobs.comparison.schema import RESERVED, TRAINING_FIELDS, ComparisonFile
from tokenshift.recipes.jobs.comparison.shipped_variants import SHIPPED
from tokenshift.recipes.jobs.training.arguments import TRAINING, RecipeArguments
from tokenshift.trainer import DivergenceGRPOConfig

WITHOUT_EFFECT = (
    *RESERVED,
    *("wandb_project", "wandb_entity", "report_to", "push_to_hub", "save_total_limit"),
    *VERIFICATION_LIMITS,
)
"""Arguments on which no trained weight depends."""


@dataclass(frozen=True)
class Variant:
    """A way to train.

    Attributes:
        name: The user's name for the variant.
        overrides: What the variant changes in the common config.
        resolved: Every argument of the training recipe that is set, after the file's and the variant's overrides,
            with the types it has there.
        training: The same arguments as they are written to a cell's config.
        recipe, args, model: The recipe's, the trainer's and the model's arguments as they are in a run.
    """

    name: str
    overrides: dict[str, Any]
    resolved: dict[str, Any]
    training: dict[str, Any]
    recipe: RecipeArguments
    args: DivergenceGRPOConfig
    model: ModelConfig

    @property
    def base_model(self) -> str:
        """The model that training starts from, with its revision."""
        name, revision = str(self.model.model_name_or_path), self.model.model_revision
        return name if revision in (None, "main") else f"{name}@{revision}"

    def trains_as(self, other: "Variant") -> bool:
        """Whether nothing on which a trained weight depends differs, given or by default."""
        pairs = ((self.recipe, other.recipe), (self.args, other.args), (self.model, other.model))
        return all(
            getattr(mine, field.name) == getattr(theirs, field.name)
            for mine, theirs in pairs
            for field in fields(mine)
            if field.name not in WITHOUT_EFFECT
        )


def read_variants(document: LinedYaml, settings: ComparisonFile, processes: int) -> dict[str, Variant]:
    """The variants of a file, by name.

    Args:
        document: The file.
        settings: What the file says.
        processes: The number of processes of a training.

    Raises:
        ValueError: for the first mistake, with its line.
    """
    common = {**training_config(document, settings.config), **settings.overrides}
    if common.get("probe_steps") is None:
        common["probe_steps"] = 0  # at the start, at saves and at the end: the last one goes into the comparison
    variants: dict[str, Variant] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, given in settings.variants.items():
            position = ("variants", name)
            overrides = {**SHIPPED.get(name, {}), **given}
            training = {**common, **overrides}
            try:
                resolved, parsed, idle = resolved_training(training, processes, Path(folder), overrides)
            except (ValueError, TypeError) as error:
                written: dict[str, Position] = {field: ("overrides", field) for field in settings.overrides}
                written |= {field: (*position, field) for field in given}
                raise document.blame(error, written, position, f"variant {name!r}: ") from error
            effective = {field: value for field, value in training.items() if field not in idle}
            variant = Variant(name, overrides, resolved, effective, *parsed)
            for other in variants.values():
                if variant.trains_as(other):
                    raise document.wrong(
                        position, f"variant {name!r} trains exactly as {other.name!r} does; drop one of them."
                    )
            variants[name] = variant
    return variants


def training_config(document: LinedYaml, given: Any) -> dict[str, Any]:
    """The arguments of a training config, without those that the comparison sets.

    Args:
        document: The comparison's file.
        given: A config's name or path, or its arguments themselves.

    Raises:
        ValueError: if there is no such file, or it holds something else, with the line that names it.
    """
    if isinstance(given, dict):
        return _without_reserved(document, given, "config")
    file = document.file(("config",), given, CONFIGS, COMMANDS["train"].configs or "*")
    try:
        config = read_yaml(file)
    except UnreadableYamlError as error:
        raise document.wrong(("config",), f"config={str(file)!r} {error}") from error
    if not isinstance(config, dict):
        raise document.wrong(("config",), f"config={str(file)!r} must hold a mapping of arguments to values.")
    return _without_reserved(document, config, f"config={str(file)!r}")


def _without_reserved(document: LinedYaml, config: dict[str, Any], what: str) -> dict[str, Any]:
    """The arguments that a comparison does not set, of which each is one; the facts of a record are none."""
    config = {name: value for name, value in config.items() if name != RECORD}
    for argument in config:
        if argument not in (*TRAINING_FIELDS, *RESERVED):
            hint = close_match(str(argument), TRAINING_FIELDS) or "."
            raise document.wrong(("config",), f"{what} sets {argument!r}, which is no argument{hint}")
    return {argument: value for argument, value in config.items() if argument not in RESERVED}


def resolved_training(
    training: Mapping[str, Any], processes: int, folder: Path, overrides: Collection[str] = ()
) -> tuple[dict[str, Any], tuple[RecipeArguments, DivergenceGRPOConfig, ModelConfig], set[str]]:
    """The training recipe's arguments with their types, of those that are set and that a trained weight depends on;
    all of them: the recipe's, the trainer's and the model's; and the names of those that are set without effect.

    Args:
        training: Arguments as they would be written to a config.
        processes: The number of processes of a run, on which batch sizes depend.
        folder: A folder where a config can be written.
        overrides: Names of the arguments that the variant itself sets; those must have an effect, and others need not:
            a setting for all variants may be one that only some of them use.

    Raises:
        ValueError: as the training recipe would.
    """

    class Planned(DivergenceGRPOConfig):
        """The config as it would be in a run of several processes."""

        @property
        def world_size(self) -> int:
            return processes

    for name, value in training.items():
        if hide_secrets(value, name) != value:
            raise ValueError(
                f"{name} holds an access token or another secret, which the trainings' configs in output_dir would "
                "hold too; leave it out, and set it in the environment (HF_TOKEN, WANDB_API_KEY)."
            )
    for kind in TRAINING:
        hints = get_type_hints(kind)  # a parser that was made before has narrowed the fields' own types
        for field in fields(kind):
            value, hint = training.get(field.name), hints[field.name]
            wanted = hint.__name__ if isinstance(hint, type) else str(hint)
            if isinstance(value, list | dict) and type(value).__name__ not in wanted:
                raise ValueError(f"{field.name}={short_repr(value)} must be of the type {wanted}.")
    file = folder / "config.yaml"
    settings = {**training, "output_dir": str(folder), "report_to": "none"}
    parsed = _written_and_read((RecipeArguments, Planned, ModelConfig), settings, file)
    tracked = (*WITHOUT_EFFECT, "project")  # report_to is none here alone
    reasons = {
        name: reason
        for name, reason in reasons_without_effect(parsed).items()
        if name not in tracked and not name.startswith("trackio_")
    }
    refuse_without_effect(parsed, {name: reason for name, reason in reasons.items() if name in overrides})
    idle = set(reasons) & getattr(parsed[0], GIVEN)
    if not parsed[2].model_name_or_path:
        raise ValueError("model_name_or_path is not set; give a hub name, a folder, pocket or smollm2.")
    resolved: dict[str, Any] = {}
    for name in sorted(training.keys() - set(WITHOUT_EFFECT) - idle):
        resolved[name] = next(getattr(arguments, name) for arguments in parsed if hasattr(arguments, name))
    return resolved, (parsed[0], parsed[1], parsed[2]), idle


def write_effective(training: Mapping[str, Any], file: Path) -> None:
    """Write a config of the training recipe, without what has no effect beside its other settings.

    Args:
        training: The arguments.
        file: A YAML file.
    """
    parsed = _written_and_read(TRAINING, training, file)
    idle = set(reasons_without_effect(parsed)) & getattr(parsed[0], GIVEN)
    effective = {name: value for name, value in training.items() if name not in idle}
    file.write_text(yaml.safe_dump(effective), encoding="utf-8")


def _written_and_read(types: tuple[Any, ...], settings: Mapping[str, Any], file: Path) -> Any:
    """Arguments as the training recipe reads them from a config; it is told nothing of those without effect."""
    file.write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")
    return parse_into(types, ["--config", str(file)], check_effect=False)
