"""The YAML file of a comparison: which variants and seeds, judged how. Mistakes are named with their line."""

import difflib
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset
from trl import ModelConfig

from tokenshift.recipes.arguments import RecipeArguments, parse_into
from tokenshift.recipes.cross_arguments import CrossArguments
from tokenshift.recipes.data import MADE
from tokenshift.recipes.evaluation_arguments import BY_SET, EvaluationArguments, problem_sets, set_contents
from tokenshift.recipes.lined_yaml import Given, LinedYaml
from tokenshift.recipes.preparation import training_problems
from tokenshift.recipes.shipped_variants import SHIPPED
from tokenshift.trainer import DivergenceGRPOConfig

RECIPES = Path(__file__).parent
CONFIGS = RECIPES / "configs"
ACCELERATE_CONFIGS = RECIPES.parent / "accelerate_configs"

RESERVED = ("output_dir", "seed", "run_name", "wandb_group", "resume_from_checkpoint", "overwrite", "config", "env")
"""What the comparison sets for each cell."""

LOOSE = (
    *RESERVED,
    *("wandb_project", "wandb_entity", "report_to", "push_to_hub", "save_total_limit"),
    *("verify_workers", "verify_timeout"),
)
"""Arguments on which no trained weight depends."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def words_of(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of a command line; those that are None are left out."""
    found = []
    for name, value in settings.items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            found += [f"--{name}", *(str(each).lower() if isinstance(each, bool) else str(each) for each in values)]
    return found


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

    def trains_as(self, other: "Variant") -> bool:
        """Whether nothing on which a trained weight depends differs, given or by default."""
        pairs = ((self.recipe, other.recipe), (self.args, other.args), (self.model, other.model))
        return all(
            getattr(own, each.name) == getattr(theirs, each.name)
            for own, theirs in pairs
            for each in fields(own)
            if each.name not in LOOSE
        )


@dataclass(frozen=True)
class Launch:
    """How a step is launched: by plain python, or by `accelerate launch` with a config file."""

    config_file: str | None = None
    num_processes: int = 1


@dataclass(frozen=True)
class Comparison:
    """What a file asks for.

    Attributes:
        path: of the file.
        name: of the comparison, and of the W&B group.
        output_dir: where results go.
        seeds: of the trainings.
        baseline: the variant that the others are compared with.
        variants: by name, in the file's order.
        evaluation: arguments of `recipes/evaluate.py`.
        contents: hashes of the evaluation's problems, by the names that its `settings.json` has for them.
        recovery: arguments of `recipes/cross_sample.py`; None where it is off.
        launch: how each step is launched.
        parallel: cells at once.
        keep_checkpoints: whether a trained cell's checkpoints stay.
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

    def distinguishing(self, name: str) -> dict[str, Any]:
        """What a variant sets otherwise than the baseline; of the baseline, all in which some variant differs."""
        baseline = self.variants[self.baseline].resolved
        others = [self.variants[name]] if name != self.baseline else list(self.variants.values())
        differ = {key for each in others for key in each.resolved if each.resolved[key] != baseline.get(key)}
        own = self.variants[name].resolved
        return {key: own[key] for key in sorted(differ & own.keys())}


def read_comparison(path: Path) -> Comparison:
    """Read and check a comparison's file; nothing is loaded or launched.

    Raises:
        ValueError: for whatever is wrong, in one line that begins with the file's name and line.
    """
    if not path.is_file():
        raise ValueError(f"--config {str(path)!r} is not a file; recipes/configs/compare_pocket.yaml is one.")
    reader = LinedYaml(path)
    given = reader.mapping(reader.root, "a comparison", 1)
    reader.refuse_unknown(given, _TOP, "the setting")
    for name in ("config", "seeds", "baseline", "variants", "evaluation"):
        if name not in given or given[name].value is None:
            line = given[name].line if name in given else 1
            raise reader.wrong(line, f"{name} is missing: {_TOP[name]}.")
    given = {name: each for name, each in given.items() if each.value is not None}
    seeds = _seeds(reader, given["seeds"])
    launch = _launch(reader, given.get("launch"))
    variants = _variants(reader, given, launch)
    baseline = str(given["baseline"].value)
    if baseline not in variants:
        raise reader.wrong(
            given["baseline"].line, f"baseline={baseline!r} is none of the variants: {', '.join(variants)}."
        )
    if len(variants) < 2:
        raise reader.wrong(given["variants"].line, f"variants has {baseline!r} alone; name one to compare with it.")
    evaluation, evaluated, sets = _evaluation(reader, given["evaluation"])
    _refuse_trained_on(reader, given["evaluation"].line, evaluated.datasets, sets, variants)
    name = str(given["name"].value) if "name" in given else path.stem
    if not NAME.fullmatch(name):
        raise reader.wrong(given["name"].line if "name" in given else 1, _bad_name("name", name))
    return Comparison(
        path=path,
        name=name,
        output_dir=str(given["output_dir"].value) if "output_dir" in given else f"outputs/{name}",
        seeds=seeds,
        baseline=baseline,
        variants=variants,
        evaluation=evaluation,
        contents=set_contents(sets),
        recovery=_recovery(reader, given.get("recovery"), evaluated, variants[baseline].training),
        launch=launch,
        parallel=_count(reader, given, "parallel"),
        keep_checkpoints=_flag(reader, given, "keep_checkpoints"),
    )


_TOP = {
    "name": "the comparison's, and the W&B group's",
    "output_dir": "where results go",
    "config": "name a training config, of recipes/configs or by its path",
    "overrides": "fields of the config to change for all cells",
    "seeds": "name at least one, for example seeds: [0, 1, 2]",
    "baseline": "name the variant that the others are compared with",
    "variants": "name each with its overrides, shipped ones without",
    "evaluation": "say on which problems, for example evaluation: {datasets: [pocket], size: 256}",
    "recovery": "cross-sampling at a budget, or off",
    "launch": "an accelerate config_file; plain python without it",
    "parallel": "cells at once",
    "keep_checkpoints": "of cells that are trained",
}


def _bad_name(what: str, name: str) -> str:
    return f"{what} {name!r} is also the name of a folder: use letters, digits, and . _ + - after the first."


def _count(reader: LinedYaml, given: Mapping[str, Given], name: str) -> int:
    value = given[name].value if name in given else 1
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise reader.wrong(given[name].line, f"{name}={value!r} must be a whole number of at least 1.")
    return value


def _flag(reader: LinedYaml, given: Mapping[str, Given], name: str) -> bool:
    value = given[name].value if name in given else False
    if not isinstance(value, bool):
        raise reader.wrong(given[name].line, f"{name}={value!r} must be true or false.")
    return value


def _seeds(reader: LinedYaml, given: Given) -> list[int]:
    seeds = given.value
    if not isinstance(seeds, list) or any(isinstance(seed, bool) or not isinstance(seed, int) for seed in seeds):
        raise reader.wrong(given.line, f"seeds={seeds!r} must be a list of whole numbers, for example [0, 1, 2].")
    if not seeds:
        raise reader.wrong(given.line, f"seeds is empty: {_TOP['seeds']}.")
    for place, seed in enumerate(seeds):
        line = given.node.value[place].start_mark.line + 1
        if not 0 <= seed < 2**32:
            raise reader.wrong(line, f"seeds has {seed}, which must be at least 0 and below 2**32.")
        if seed in seeds[:place]:
            raise reader.wrong(line, f"seeds has {seed} twice; a seed trained again is the same cell.")
    return list(seeds)


def _file(reader: LinedYaml, given: Given, what: str, shipped: Path) -> Path:
    """A file by its path, seen from here or from the comparison's file, or by its name among the shipped ones."""
    name = str(given.value)
    bare = Path(name).expanduser()
    places = [bare, reader.path.parent / bare, shipped / bare, shipped / f"{name}.yaml"]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        known = ", ".join(sorted(path.stem for path in shipped.glob("*.yaml") if not path.stem.startswith("compare_")))
        raise reader.wrong(given.line, f"{what}={name!r} is neither a file nor one of {known}.")
    return found


def _launch(reader: LinedYaml, given: Given | None) -> Launch:
    if given is None:
        return Launch()
    own = reader.mapping(given.node, "launch", given.line)
    reader.refuse_unknown(own, ("config_file", "num_processes"), "launch's")
    if not own:
        return Launch()
    if "config_file" not in own:
        raise reader.wrong(given.line, "launch has no config_file; name one of accelerate_configs/.")
    file = _file(reader, own["config_file"], "config_file", ACCELERATE_CONFIGS)
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        config = None
    if not isinstance(config, dict):
        raise reader.wrong(own["config_file"].line, f"config_file={str(file)!r} is not an accelerate config.")
    if "num_processes" in own:
        return Launch(str(file), _count(reader, own, "num_processes"))
    return Launch(str(file), int(config.get("num_processes") or 1))


def _training_fields() -> list[str]:
    return [each.name for kind in (RecipeArguments, DivergenceGRPOConfig, ModelConfig) for each in fields(kind)]


def _overrides(reader: LinedYaml, own: Mapping[str, Given], what: str) -> dict[str, Any]:
    for name, each in own.items():
        if name in RESERVED:
            raise reader.wrong(each.line, f"{what} sets {name}, which the comparison sets for each cell; drop it.")
    listed = "python recipes/grpo_divweighted.py --help lists them."
    reader.refuse_unknown(own, _training_fields(), f"{what}: the field", listed)
    return {name: each.value for name, each in own.items()}


def _variants(reader: LinedYaml, given: Mapping[str, Given], launch: Launch) -> dict[str, Variant]:
    file = _file(reader, given["config"], "config", CONFIGS)
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
            if not NAME.fullmatch(name):
                raise reader.wrong(each.line, _bad_name("the variant", name))
            own = reader.mapping(each.node, f"variant {name!r}", each.line)
            if not own and name not in SHIPPED:
                shipped = ", ".join(SHIPPED)
                raise reader.wrong(
                    each.line, f"variant {name!r} has no overrides, and is none of the shipped ones: {shipped}."
                )
            overrides = {**SHIPPED.get(name, {}), **_overrides(reader, own, f"variant {name!r}")}
            training = {**common, **overrides}
            try:
                resolved, parsed = resolved_training(training, launch.num_processes, Path(folder))
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

    for kind in (RecipeArguments, DivergenceGRPOConfig, ModelConfig):
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


_EVALUATION_RESERVED = ("model", "against", "output_dir", "overwrite")
_RECOVERY_RESERVED = ("rl_model", "base_model", "directions", "criteria", "budgets", "output_dir", "overwrite")


def _arguments(reader: LinedYaml, given: Given, kind: Any, reserved: Iterable[str], more: Iterable[str] = ()) -> Any:
    own = reader.mapping(given.node, "it", given.line)
    known = [each.name for each in fields(kind) if each.name not in reserved]
    reader.refuse_unknown(own, [*known, *more], "the field")
    return own


def _evaluation(reader: LinedYaml, given: Given) -> tuple[dict[str, Any], EvaluationArguments, dict[str, Dataset]]:
    """The arguments as they are given, as they are in a run, and the sets by name."""
    own = _arguments(reader, given, EvaluationArguments, _EVALUATION_RESERVED)
    settings = {name: each.value for name, each in own.items()}
    if not settings.get("datasets"):
        raise reader.wrong(given.line, f"evaluation names no datasets; {_TOP['evaluation']}.")
    if not isinstance(settings["datasets"], list):
        settings["datasets"] = [settings["datasets"]]
    try:
        args = parse_into((EvaluationArguments,), ["--model", "-", *words_of(settings)])[0]
        return settings, args, problem_sets(args)
    except (ValueError, TypeError) as error:
        raise reader.blame(error, own, given.line, "evaluation: ") from error


def _refuse_trained_on(
    reader: LinedYaml,
    line: int,
    datasets: Iterable[str],
    sets: Mapping[str, Dataset],
    variants: Mapping[str, Variant],
) -> None:
    """Raise where a set has problems that some variant is trained on; made problems never do.

    Args:
        reader, line: of the evaluation.
        datasets: what its sets are made of, in their order.
        sets: by name.
        variants: all.

    Raises:
        ValueError: for the first such set.
    """
    done: list[dict[str, Any]] = []
    for variant in variants.values():
        recipe = variant.recipe
        arguments = {each.name: getattr(recipe, each.name) for each in fields(recipe)}
        same = [name for name, dataset in zip(sets, datasets, strict=True) if dataset == recipe.dataset_name]
        if recipe.dataset_name in MADE or not same or arguments in done:
            continue
        done.append(arguments)
        train, _ = training_problems(recipe)
        seen = {str(prompt) for prompt in train["prompt"]}
        for name in same:
            count = sum(str(prompt) in seen for prompt in sets[name]["prompt"])
            if count:
                raise reader.wrong(
                    line,
                    f"evaluation: {count} of the {len(sets[name])} problems of {name!r} are trained on; name a "
                    f"dataset_split without them, or a size of at most eval_size={recipe.eval_size}.",
                )


def base_model(training: Mapping[str, Any]) -> str:
    """The model that a variant's training starts from, with its revision."""
    name, revision = str(training.get("model_name_or_path")), training.get("model_revision")
    return name if revision in (None, "main") else f"{name}@{revision}"


def _recovery(
    reader: LinedYaml, given: Given | None, evaluated: EvaluationArguments, training: Mapping[str, Any]
) -> dict[str, Any] | None:
    if given is None or given.value in (False, "off"):
        return None
    own = _arguments(reader, given, CrossArguments, _RECOVERY_RESERVED, ["budget"])
    settings = {name: each.value for name, each in own.items()}
    if "budget" not in settings:
        raise reader.wrong(given.line, "recovery has no budget; give a share of tokens, for example budget: 0.02.")
    read = {name: evaluated.of_set(name, 0) for name in BY_SET}
    read |= {name: getattr(evaluated, name) for name in ("system_prompt", "prompt_template")}
    settings = {
        "base_model": base_model(training),
        "directions": ["forward"],
        "criteria": ["js"],
        "budgets": [settings.pop("budget")],
        "dataset_name": evaluated.datasets[0],
        **{name: value for name, value in read.items() if value is not None},
        **settings,
    }
    try:
        parse_into((CrossArguments,), words_of(settings))
    except (ValueError, TypeError) as error:
        raise reader.blame(error, {**own, "budgets": own["budget"]}, given.line, "recovery: ") from error
    return settings
