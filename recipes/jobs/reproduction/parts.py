"""The parts of a reproduction: each is a recipe with its arguments, run as a process of its own."""

import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenshift.recipes.command_line.commands import COMMANDS
from tokenshift.recipes.command_line.parser import words_of
from tokenshift.recipes.command_line.products import MODEL_DIR
from tokenshift.recipes.jobs.reproduction.file import DAPO, ScaleFile
from tokenshift.recipes.jobs.reproduction.part_kinds import CROSS, EVOLUTION, ROBUSTNESS, SFT, SHIFT, TRAININGS

COMMAND_OF = {
    TRAININGS: "compare",
    SFT: "sft",
    SHIFT: "shift",
    EVOLUTION: "evolution",
    CROSS: "cross",
    ROBUSTNESS: "robustness",
}
"""The command that runs each kind of part."""

PRODUCT = {
    TRAININGS: "comparison.json",
    SFT: MODEL_DIR,
    SHIFT: "runs.json",
    EVOLUTION: "evolution.json",
    CROSS: "cross.json",
    ROBUSTNESS: "robustness.json",
}
"""The file that each kind of part leaves when it has ended."""

COMPARISON_FILE = "comparison.yaml"
"""The file of the trainings, which the reproduction writes."""

Scripts = Mapping[str, Sequence[str]]
"""The words that launch each command, before its arguments."""

SCRIPTS: Scripts = {name: [str(COMMANDS[name].script)] for name in COMMAND_OF.values()}


@dataclass
class Part:
    """A part, and how far it has come.

    Attributes:
        name: The part's name, such as `cross dapo seed 0 shared`.
        kind: A key of `COMMAND_OF`.
        settings: The recipe's arguments.
        folder: Where its products go.
        after: The names of the parts whose products it reads.
        depends_on: Whatever its products depend on beside its arguments.
        seed: The seed of the model that it looks at; None for parts over all seeds.
        arms: The arms whose models it looks at, without the SFT control.
        benchmark: The set of `cross_sets` that it is of; empty where there is none.
        state: `waiting`, `running`, `done`, `failed` or `left out` since a part before it failed.
        seconds: How long it took, over all launches.
        failure: The last line that a failed part said.
    """

    name: str
    kind: str
    settings: dict[str, Any]
    folder: Path
    after: tuple[str, ...] = ()
    depends_on: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    arms: tuple[str, ...] = ()
    benchmark: str = ""
    state: str = "waiting"
    seconds: float = 0.0
    failure: str | None = None

    @property
    def log(self) -> Path:
        """The file with all that the recipe said."""
        return self.folder.parent / f"{self.folder.name}.log"

    @property
    def product(self) -> Path:
        """The file that is there when the part has ended."""
        return self.folder / PRODUCT[self.kind]

    @property
    def recorded(self) -> dict[str, Any]:
        """All that its products depend on."""
        settings = {name: value for name, value in self.settings.items() if name != "parallel"}
        return {**settings, **self.depends_on}

    def words(self) -> list[str]:
        """The words of its command line after the script."""
        return words_of(self.settings)

    def command(self, scripts: Scripts = SCRIPTS) -> list[str]:
        """The words that start it."""
        return [sys.executable, *scripts[COMMAND_OF[self.kind]], *self.words()]

    def shown_command(self) -> str:
        """The command as a user would write it."""
        words = [f'"{word}"' if " " in word or not word else word for word in self.words()]
        return " ".join(["python", f"recipes/{COMMANDS[COMMAND_OF[self.kind]].script.name}", *words])


def cell_folder(folder: Path, arm: str, seed: int) -> Path:
    """The folder of a training, as `compare_variants.py` names it."""
    return folder / TRAININGS / "cells" / f"{arm}-seed{seed}"


def comparison_document(scale: ScaleFile, seeds: Sequence[int]) -> dict[str, Any]:
    """The contents of the trainings' file."""
    keep = {"keep_checkpoints": True} if scale.evolution is not None else {}
    prompts: dict[str, Any] = {"evaluation_prompts": scale.prompts} if scale.prompts else {}
    return {**scale.comparison, "baseline": DAPO, "seeds": list(seeds), **keep, **prompts}


def asked_alike(scale: ScaleFile) -> list[list[str]]:
    """The arms of `shift_arms` in groups that have one prompt; each group's shifts are analyzed together."""
    groups: dict[str, list[str]] = {}
    for arm in scale.shift_arms:
        groups.setdefault(json.dumps(scale.prompts.get(arm, {}), sort_keys=True), []).append(arm)
    return list(groups.values())


def parts_of(scale: ScaleFile, folder: Path, seeds: Sequence[int], parallel: int) -> list[Part]:
    """All parts, in an order in which each comes after those that it reads.

    Args:
        scale: What the scale's file says.
        folder: The output folder.
        seeds: The seeds of the trainings.
        parallel: Trainings at once.
    """

    def model(arm: str, seed: int) -> str:
        return str(cell_folder(folder, arm, seed) / MODEL_DIR)

    trainings = {"config": str(folder / COMPARISON_FILE), "output_dir": str(folder / TRAININGS), "parallel": parallel}
    document = {"comparison": comparison_document(scale, seeds)}
    parts = [Part(TRAININGS, TRAININGS, trainings, folder / TRAININGS, depends_on=document)]

    def add(name: str, kind: str, settings: dict[str, Any], *after: str, seed: int | None = None, **of: Any) -> None:
        place = folder / name.replace(" ", "-")
        if seed is not None:
            place = folder / kind / name.removeprefix(f"{kind} ").replace(" ", "-")
        settings = {**settings, "output_dir": str(place)}
        parts.append(Part(name, kind, settings, place, (TRAININGS, *after), seed=seed, **of))

    for seed in seeds:
        target = {} if "target_accuracy" in scale.sft else {"rl_model": model(DAPO, seed)}
        settings = {**target, **scale.sft, "seed": seed, "resume_from_checkpoint": True}
        add(f"sft seed {seed}", SFT, settings, seed=seed)
    controls = [str(folder / SFT / f"seed-{seed}" / MODEL_DIR) for seed in seeds]
    for index, arms in enumerate(asked_alike(scale)):
        trained = [f"{arm}={model(arm, seed)}" for arm in arms for seed in seeds]
        shift = {"rl_model": trained, "sft_models": controls, **scale.shift, **scale.prompt_of(arms[0])}
        name = SHIFT if index == 0 else f"{SHIFT} {' '.join(arms)}"
        add(name, SHIFT, shift, *(f"sft seed {seed}" for seed in seeds), arms=tuple(arms))
    if scale.cross is not None:
        for arm, benchmark in itertools.product(scale.cross_arms, scale.cross_sets or [""]):
            of = f"{arm if scale.cross_arms != [DAPO] else ''} {benchmark}".split()
            given = {**scale.cross, **scale.cross_sets.get(benchmark, {}), **scale.prompt_of(arm)}
            for draws, more in scale.draws.items():
                for seed in seeds:
                    cross = {"rl_model": model(arm, seed), **given, **more, "draws": draws}
                    name = " ".join([CROSS, *of, f"seed {seed} {draws}"])
                    add(name, CROSS, cross, seed=seed, arms=(arm,), benchmark=benchmark)
    if scale.evolution is not None:
        for seed in seeds:
            checkpoints = str(cell_folder(folder, DAPO, seed) / "checkpoint-*")
            evolution = {"checkpoints": [checkpoints], **scale.evolution}
            add(f"evolution seed {seed}", EVOLUTION, evolution, seed=seed, arms=(DAPO,))
    if scale.robustness is not None:
        add(ROBUSTNESS, ROBUSTNESS, {"rl_model": model(DAPO, seeds[0]), **scale.robustness}, arms=(DAPO,))
    return parts
