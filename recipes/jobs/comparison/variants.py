"""The variants of a comparison: a training config with overrides, checked down to every argument of a training."""

import difflib
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from trl import ModelConfig

from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.jobs.comparison.lined_yaml import Given, LinedYaml
from tokenshift.recipes.jobs.comparison.shipped_variants import SHIPPED
from tokenshift.recipes.jobs.training.arguments import TRAINING, RecipeArguments
from tokenshift.trainer import DivergenceGRPOConfig

CONFIGS = Path(__file__).parents[2] / "configs"

RESERVED = ("output_dir", "seed", "run_name", "wandb_group", "resume_from_checkpoint", "overwrite", "config", "env")
"""What the comparison sets for each cell."""

LOOSE = (
    *RESERVED,
    *("wandb_project", "wandb_entity", "report_to", "push_to_hub", "save_total_limit"),
    *("verify_workers", "verify_timeout"),
)
"""Arguments on which no trained weight depends."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Variant:
    """A way to train.

    Attributes:
        name: as the user gave it.
        overrides: of the common config.
        resolved: every argument of the training recipe that is set, after the file's and the variant's overrides,
            with the types it has there.
        training: the same as they are written to a cell's config.
        recipe, args, model: the recipe's, the trainer's and the model's, as they are in a run.
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
            getattr(own, each.name) == getattr(theirs, each.name)
            for own, theirs in pairs
            for each in fields(own)
            if each.name not in LOOSE
        )


def check_name(reader: LinedYaml, line: int, what: str, name: str) -> None:
    """Raise for a name that cannot be a folder's.

    Raises:
        ValueError: if it cannot.
    """
    if not NAME.fullmatch(name):
        raise reader.wrong(
            line, f"{what} {name!r} is also the name of a folder: use letters, digits, and . _ + - after the first."
        )


def _training_fields() -> list[str]:
    return [each.name for kind in TRAINING for each in fields(kind)]


def _overrides(reader: LinedYaml, own: Mapping[str, Given], what: str) -> dict[str, Any]:
    for name, each in own.items():
        if name in RESERVED:
            raise reader.wrong(each.line, f"{what} sets {name}, which the comparison sets for each cell; drop it.")
    listed = "python recipes/grpo_divweighted.py --help lists them."
    reader.refuse_unknown(own, _training_fields(), f"{what}: the field", listed)
    return {name: each.value for name, each in own.items()}


def read_variants(reader: LinedYaml, given: Mapping[str, Given], processes: int) -> dict[str, Variant]:
    """The variants of a file, by name.

    Args:
        reader: of the file.
        given: `config`, `variants`, and maybe `overrides`.
        processes: of a training.

    Raises:
        ValueError: for the first mistake, with its line.
    """
    file = reader.file(given["config"], "config", CONFIGS)
    config = _config(reader, given["config"], file)
    everywhere: dict[str, Given] = {}
    if "overrides" in given:
        everywhere = reader.mapping(given["overrides"].node, "overrides", given["overrides"].line)
    common = {**config, **_overrides(reader, everywhere, "overrides")}
    if common.get("probe_steps") is None:
        common["probe_steps"] = 0  # at the start, at saves and at the end: the last one goes into the comparison
    found: dict[str, Variant] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, each in reader.mapping(given["variants"].node, "variants", given["variants"].line).items():
            check_name(reader, each.line, "the variant", name)
            own = reader.mapping(each.node, f"variant {name!r}", each.line)
            if not own and name not in SHIPPED:
                shipped = ", ".join(SHIPPED)
                raise reader.wrong(
                    each.line, f"variant {name!r} has no overrides, and is none of the shipped ones: {shipped}."
                )
            overrides = {**SHIPPED.get(name, {}), **_overrides(reader, own, f"variant {name!r}")}
            training = {**common, **overrides}
            try:
                resolved, parsed = resolved_training(training, processes, Path(folder))
            except (ValueError, TypeError) as error:
                raise reader.blame(error, {**everywhere, **own}, each.line, f"variant {name!r}: ") from error
            variant = Variant(name, overrides, resolved, training, *parsed)
            for other in found.values():
                if variant.trains_as(other):
                    raise reader.wrong(
                        each.line, f"variant {name!r} trains exactly as {other.name!r} does; drop one of them."
                    )
            found[name] = variant
    return found


def _config(reader: LinedYaml, given: Given, file: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise reader.wrong(given.line, f"config={str(file)!r} is not YAML: {error}") from error
    if not isinstance(config, dict):
        raise reader.wrong(given.line, f"config={str(file)!r} must hold a mapping of arguments to values.")
    known = _training_fields()
    for name in config:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else "."
            raise reader.wrong(given.line, f"config={str(file)!r} sets {name!r}, which is no argument{hint}")
    return {name: value for name, value in config.items() if name not in RESERVED}


def resolved_training(
    training: Mapping[str, Any], processes: int, folder: Path
) -> tuple[dict[str, Any], tuple[RecipeArguments, DivergenceGRPOConfig, ModelConfig]]:
    """The training recipe's arguments with their types, of those that are set and that a trained weight depends on,
    and all of them: the recipe's, the trainer's and the model's.

    Args:
        training: as they would be written to a config.
        processes: of a run, on which batch sizes depend.
        folder: where a config can be written.

    Raises:
        ValueError: as the training recipe would.
    """

    class Planned(DivergenceGRPOConfig):
        """The config as it would be in a run of several processes."""

        @property
        def world_size(self) -> int:
            return processes

    for kind in TRAINING:
        for each in fields(kind):
            value, wanted = training.get(each.name), str(each.type)
            if isinstance(value, list | dict) and type(value).__name__ not in wanted:
                raise ValueError(f"{each.name}={value!r} must be of the type {wanted}.")
    file = folder / "config.yaml"
    settings = {**training, "output_dir": str(folder), "report_to": "none"}
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    parsed = parse_into((RecipeArguments, Planned, ModelConfig), ["--config", str(file)])
    if not parsed[2].model_name_or_path:
        raise ValueError("model_name_or_path is not set; give a hub name, a folder, pocket or smollm2.")
    found: dict[str, Any] = {}
    for name in sorted(training.keys() - set(LOOSE)):
        found[name] = next(getattr(each, name) for each in parsed if hasattr(each, name))
    return found, (parsed[0], parsed[1], parsed[2])
