"""The YAML file of a comparison: which variants and seeds, judged how. Mistakes are named with their line."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tokenshift.recipes.jobs.analysis.evaluation import set_contents
from tokenshift.recipes.jobs.comparison.judging import read_evaluation, read_recovery, refuse_trained_on
from tokenshift.recipes.jobs.comparison.lined_yaml import Given, LinedYaml
from tokenshift.recipes.jobs.comparison.variants import Variant, check_name, read_variants

ACCELERATE_CONFIGS = Path(__file__).parents[3] / "accelerate_configs"


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
        recovery: arguments of `recipes/cross_sample.py`, without the models; None where it is off.
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
    variants = read_variants(reader, given, launch.num_processes)
    baseline = str(given["baseline"].value)
    if baseline not in variants:
        raise reader.wrong(
            given["baseline"].line, f"baseline={baseline!r} is none of the variants: {', '.join(variants)}."
        )
    if len(variants) < 2:
        raise reader.wrong(given["variants"].line, f"variants has {baseline!r} alone; name one to compare with it.")
    evaluation, evaluated, sets = read_evaluation(reader, given["evaluation"])
    refuse_trained_on(reader, given["evaluation"].line, evaluated.datasets, sets, variants)
    name = str(given["name"].value) if "name" in given else path.stem
    check_name(reader, given["name"].line if "name" in given else 1, "name", name)
    return Comparison(
        path=path,
        name=name,
        output_dir=str(given["output_dir"].value) if "output_dir" in given else f"outputs/{name}",
        seeds=seeds,
        baseline=baseline,
        variants=variants,
        evaluation=evaluation,
        contents=set_contents(sets),
        recovery=read_recovery(reader, given.get("recovery"), evaluated),
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


def _launch(reader: LinedYaml, given: Given | None) -> Launch:
    if given is None:
        return Launch()
    own = reader.mapping(given.node, "launch", given.line)
    reader.refuse_unknown(own, ("config_file", "num_processes"), "launch's")
    if not own:
        return Launch()
    if "config_file" not in own:
        raise reader.wrong(given.line, "launch has no config_file; name one of accelerate_configs/.")
    file = reader.file(own["config_file"], "config_file", ACCELERATE_CONFIGS)
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        config = None
    if not isinstance(config, dict):
        raise reader.wrong(own["config_file"].line, f"config_file={str(file)!r} is not an accelerate config.")
    if "num_processes" in own:
        return Launch(str(file), _count(reader, own, "num_processes"))
    return Launch(str(file), int(config.get("num_processes") or 1))
