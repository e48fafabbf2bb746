"""The cells of a comparison: each is a variant that is trained with a seed, evaluated and cross-sampled.

Each step is a recipe, which can be killed and goes on where it was. A cell's folder holds what the training recipe
leaves, `evaluation/`, `cross/`, the `training.yaml` that trains the cell alone, `cell.json` with the settings of each
step, and `log.txt` with the output of the recipes.
"""

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from tokenshift.analysis.secrets import hide_in_text
from tokenshift.analysis.storage.json_files import read_json
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.recipes.command_line.child_processes import Children, end_orphans, log_tail
from tokenshift.recipes.command_line.commands import RECIPES
from tokenshift.recipes.command_line.output_folder import CONTENT_PARTS, UNRECORDED_ARGUMENTS
from tokenshift.recipes.command_line.parser import words_of
from tokenshift.recipes.command_line.products import (
    CELL_FILE,
    MODEL_DIR,
    SETTINGS_FILE,
    SUMMARY_FILE,
    delete_products,
)
from tokenshift.recipes.inputs.problems import MADE
from tokenshift.recipes.jobs.analysis.cross_sampling import CrossArguments
from tokenshift.recipes.jobs.analysis.evaluation import EvaluationArguments
from tokenshift.recipes.jobs.comparison.file import Comparison, Launch
from tokenshift.recipes.jobs.comparison.variants import Variant
from tokenshift.recipes.jobs.training.arguments import TRAINING

CELL_LOG_FILE = "log.txt"

TRAINING_CONFIG_FILE = "training.yaml"
"""The config that a cell's training is started with; its record, with every setting, is `config.yaml`."""

EVALUATION_DIR, CROSS_DIR = "evaluation", "cross"
TRACKED_FILE = "wandb_evaluation.txt"
"""Holds the id of the W&B run whose summary has what came after the training."""

StepName = Literal["training", "evaluation", "recovery"]

STEP_ARGUMENTS: Mapping[StepName, Sequence[Any]] = {
    "training": TRAINING,
    "evaluation": (EvaluationArguments,),
    "recovery": (CrossArguments,),
}
"""The dataclasses whose fields are the arguments of each step."""

IRRELEVANT_ARGUMENTS = (*UNRECORDED_ARGUMENTS, "resamples", "ks")
"""Arguments on which no response and no verdict depends."""

ATTEMPTS = 2
"""Number of tries of a step: one that crashed is tried once more."""

MISTAKE_STATUS = 2
"""Exit status of a recipe that refuses its arguments; it would refuse them again."""

Scripts = Mapping[StepName, Sequence[str]]
"""The words that launch each step, before its arguments."""

SCRIPTS: Scripts = {
    "training": [str(RECIPES / "grpo_divweighted.py")],
    "evaluation": [str(RECIPES / "evaluate.py")],
    "recovery": [str(RECIPES / "cross_sample.py")],
}


@dataclass(frozen=True)
class Step:
    """One recipe of a cell.

    Attributes:
        name: the step's name.
        settings: whatever the step's product depends on, beside the steps before.
        command: the words of its command line.
        folders: glob patterns of what it leaves in the cell's folder; None for everything in the folder.
        is_done: tells whether its product is there.
    """

    name: StepName
    settings: dict[str, Any]
    command: list[str]
    folders: tuple[str, ...] | None
    is_done: Callable[[], bool]


@dataclass
class TrainedCell:
    """A variant and a seed, and how far it has come.

    Attributes:
        variant, seed: the variant and the seed of the training.
        folder: where the cell's files are.
        phase: `waiting`, the name of the step that runs, `done` or `failed`.
        started: when this phase began, by `time.monotonic`.
        accuracy: the accuracy of the trained model, where it is known.
        failure: the step that failed, and the last line of its log.
    """

    variant: Variant
    seed: int
    folder: Path
    phase: str = "waiting"
    started: float = field(default_factory=time.monotonic)
    accuracy: float | None = None
    failure: str | None = None

    @property
    def name(self) -> str:
        return f"{self.variant.name}-seed{self.seed}"

    @property
    def log(self) -> Path:
        return self.folder / CELL_LOG_FILE

    def enter(self, phase: str) -> None:
        """Begin a phase."""
        self.phase, self.started = phase, time.monotonic()

    def updates(self) -> tuple[int, int] | None:
        """The number of updates made, and of all updates, as the log says; None before the first line."""
        lines = re.findall(r"^update (\d+)/(\d+)", log_tail(self.log), re.MULTILINE)
        return (int(lines[-1][0]), int(lines[-1][1])) if lines else None

    def record(self) -> dict[str, Any]:
        """Settings and seconds of the steps so far; empty where there is none."""
        file = self.folder / CELL_FILE
        try:
            record: dict[str, Any] = read_json(file, dict) if file.is_file() else {}
        except ValueError as error:
            raise ValueError(f"{file} is damaged; delete the folder {self.folder}.") from error
        return record

    def seconds(self) -> float:
        """Seconds that the cell's steps took, over all launches."""
        return float(sum(self.record().get("seconds", {}).values()))


def cells_of(comparison: Comparison, folder: Path) -> list[TrainedCell]:
    """All variants with the first seed, then with the next: what is stopped early is a fair comparison too. The seeds
    of the replication come last."""
    return [
        TrainedCell(variant, seed, folder / "cells" / f"{variant.name}-seed{seed}")
        for seed in [*comparison.seeds, *comparison.replication_seeds]
        for variant in comparison.variants.values()
    ]


def steps_of(cell: TrainedCell, comparison: Comparison, scripts: Scripts = SCRIPTS) -> list[Step]:
    """The steps of a cell, in order."""
    folder, model = cell.folder, str(cell.folder / MODEL_DIR)

    def command(name: StepName, settings: Mapping[str, Any]) -> list[str]:
        return [*launcher(comparison.launch, comparison.parallel), *scripts[name], *words_of(settings)]

    # a model that is trained with code of its own is saved with it, and needs it in each step
    trusted = {"trust_remote_code": True} if cell.variant.resolved.get("trust_remote_code") else {}
    prompts = comparison.prompts.get(cell.variant.name, {})
    evaluated = {**comparison.evaluation, **prompts}
    evaluation = {"model": model, **trusted, **evaluated, "output_dir": str(folder / EVALUATION_DIR)}
    steps = [
        Step(
            "training",
            {**cell.variant.resolved, "seed": cell.seed, **_processes(comparison.launch)},
            command("training", {"config": str(folder / TRAINING_CONFIG_FILE)}),
            None,
            lambda: _is_trained(folder),
        ),
        Step(
            "evaluation",
            evaluated,
            command("evaluation", evaluation),
            (EVALUATION_DIR, TRACKED_FILE),
            lambda: (folder / EVALUATION_DIR / "evaluation.json").is_file(),
        ),
    ]
    if comparison.recovery is not None:
        asked = {} if comparison.evaluation["datasets"][0] in MADE else prompts  # its first set
        wanted = {**comparison.recovery, **asked, "base_model": cell.variant.base_model}
        recovery = {"rl_model": model, **trusted, **wanted, "output_dir": str(folder / CROSS_DIR)}
        steps.append(
            Step(
                "recovery",
                wanted,
                command("recovery", recovery),
                (CROSS_DIR, TRACKED_FILE),
                lambda: (folder / CROSS_DIR / "cross.json").is_file(),
            )
        )
    return steps


def _processes(launch: Launch) -> dict[str, int]:
    """The number of processes of a training, of which its batch size is a multiple; empty where it is one."""
    return {"num_processes": launch.num_processes} if launch.num_processes > 1 else {}


def launcher(launch: Launch, parallel: int = 1) -> list[str]:
    """The words of a command line before a script."""
    if launch.config_file is None:
        return [sys.executable]
    words = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", launch.config_file]
    words += ["--num_processes", str(launch.num_processes)]
    return [*words, "--main_process_port", "0"] if parallel > 1 else words  # 0: any that is free


def _is_trained(folder: Path) -> bool:
    file = folder / SUMMARY_FILE
    if not file.is_file() or not (folder / MODEL_DIR).is_dir():
        return False
    try:
        return not read_json(file, dict)["stopped_early"]
    except (ValueError, KeyError):  # damaged
        return False


def changed_setting(cell: TrainedCell, comparison: Comparison) -> tuple[Step, str] | None:
    """The first step that was made with other settings, and the setting that differs; None where there is none."""
    record = cell.record()
    for step in steps_of(cell, comparison):
        before, now = record.get(step.name), json.loads(hide_in_text(json.dumps(step.settings, default=str)))
        if before is None:
            continue
        known = [argument for arguments in STEP_ARGUMENTS[step.name] for argument in fields(arguments)]
        defaults = {argument.name: argument.default for argument in known if argument.default is not MISSING}
        for name in sorted({*before, *now} - set(IRRELEVANT_ARGUMENTS)):
            old, new = (settings.get(name, defaults.get(name)) for settings in (before, now))
            if old != new:
                return step, f"{name}={old!r}, not {new!r}"
        if step.name == "evaluation":
            evaluated = _evaluated_contents(cell.folder / EVALUATION_DIR / SETTINGS_FILE)
            contents = comparison.prompted_contents.get(cell.variant.name, comparison.contents)
            for name, content in contents.items():
                if evaluated.get(name, content) != content:
                    return step, f"other problems in the {name}"
    return None


def _evaluated_contents(settings_file: Path) -> dict[str, str]:
    """Hashes of the models and sets that an evaluation was made with, by name; empty where there is no evaluation."""
    try:
        contents: dict[str, str] = read_json(settings_file, dict).get(CONTENT_PARTS, {})
    except (OSError, ValueError):
        return {}
    return contents


def forget(cell: TrainedCell, first: Step) -> None:
    """Delete what a step left and, where it is the training, what the steps after it left."""
    end_orphans(cell.folder)
    if first.folders is None:
        for path in [path for path in cell.folder.iterdir() if path.name != CELL_FILE]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(cell.folder)  # with the record, which says whose folder it is, last
        return
    delete_products(cell.folder, first.folders)
    record = cell.record()
    record.pop(first.name)
    _write_record(cell, record)


def _write_record(cell: TrainedCell, record: Mapping[str, Any]) -> None:
    write_whole(cell.folder / CELL_FILE, json.dumps(record, indent=1, default=str) + "\n")


def cell_config(cell: TrainedCell, comparison: Comparison) -> dict[str, Any]:
    """Arguments of the training recipe for a cell."""
    return {
        **cell.variant.training,
        "seed": cell.seed,
        "output_dir": str(cell.folder),
        "run_name": cell.name,
        "wandb_group": comparison.name,
        "resume_from_checkpoint": True,
    }


def run_cell(
    cell: TrainedCell,
    comparison: Comparison,
    children: Children,
    environment: Mapping[str, str],
    accuracy: Callable[[Path], float],
    scripts: Scripts = SCRIPTS,
) -> None:
    """Do what is left of a cell; a step that fails twice, or refuses its arguments, marks it as failed.

    Args:
        cell: the cell; its `phase` is kept up to date.
        comparison: the comparison that the cell belongs to.
        children: starts the processes.
        environment: environment variables of the processes, beside those of this one.
        accuracy: reads the accuracy from the folder of a cell that is evaluated.
        scripts: the script that is launched for each step.

    Raises:
        Stopped: when the children are stopped.
    """
    cell.folder.mkdir(parents=True, exist_ok=True)
    end_orphans(cell.folder)  # it waits for them, and an orphan's lock on the folder ends with it
    for step in steps_of(cell, comparison, scripts):
        if not step.is_done():
            cell.enter(step.name)
            _write_record(cell, cell.record() | {step.name: step.settings})  # first: it says whose folder this is
            if step.name == "training":
                config = yaml.safe_dump(cell_config(cell, comparison), sort_keys=False, allow_unicode=True)
                write_whole(cell.folder / TRAINING_CONFIG_FILE, config)
            for attempt in range(1, ATTEMPTS + 1):
                status = _attempt(cell, step, attempt, children, environment)
                if step.is_done() or status == MISTAKE_STATUS:
                    break
        if not step.is_done():
            cell.failure = f"{step.name}: {_last_line(cell.log)}"
            cell.enter("failed")
            return
        if step.name == "training" and not comparison.keep_checkpoints:
            delete_products(cell.folder, ["checkpoint-*"])
        if step.name == "evaluation":
            try:
                cell.accuracy = accuracy(cell.folder)
            except (ValueError, OSError) as error:
                cell.failure = f"{step.name}: {' '.join(str(error).split())}"
                cell.enter("failed")
                return
    cell.enter("done")


def _attempt(cell: TrainedCell, step: Step, attempt: int, children: Children, environment: Mapping[str, str]) -> int:
    """Run a step, and return its exit status."""
    with cell.log.open("a", encoding="utf-8") as log:
        log.write(f"--- {step.name}, attempt {attempt}\n")
    started = time.monotonic()
    try:
        return children.run(step.command, cell.folder, cell.log, environment)
    finally:
        record = cell.record()
        seconds = dict(record.get("seconds", {}))
        seconds[step.name] = round(seconds.get(step.name, 0.0) + time.monotonic() - started, 1)
        _write_record(cell, record | {"seconds": seconds})


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log_tail(log).splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
