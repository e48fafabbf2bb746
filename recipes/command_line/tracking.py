"""Reports the headline numbers and the figures of an analysis to trackers, through transformers' integrations."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.image
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback

from tokenshift.recipes.command_line.products import TENSORBOARD_DIR
from tokenshift.recipes.command_line.run_record import plain, settings_to_record, without_secrets
from tokenshift.recipes.command_line.wandb_run import finish_wandb, start_wandb
from tokenshift.trainer.guard.trackers import check_trackers, protect_trackers, tracker_errors_told
from tokenshift.trainer.tracking.metrics import is_own

PROJECT = "tokenshift"
"""Project of W&B and trackio, where `WANDB_PROJECT` names no other."""

Logs = Sequence[tuple[int, Mapping[str, float | None]]]
"""Numbers by name for each step: 0, or a checkpoint's update. Those that are None are left out."""


@dataclass
class TrackedArguments:
    """
    Trackers of an analysis.

    Parameters:
        report_to (`list[str]`, *optional*):
            Trackers that get the headline numbers and the figures, as of TRL's trainers.
    """

    report_to: list[str] | None = field(
        default=None, metadata={"help": "Trackers for headline numbers and figures: wandb, tensorboard, ..."}
    )

    def __post_init__(self) -> None:
        check_trackers(self.report_to)
        parent: Any = super()
        if hasattr(parent, "__post_init__"):
            parent.__post_init__()


class _Settings(TrainingArguments):
    """A trainer's config for the integrations, with the settings of the analysis in place of a training's."""

    analysis: dict[str, Any] = {}

    def to_dict(self) -> dict[str, Any]:
        return self.analysis


def _to_wandb(callback: Any, name: str, file: Path, step: int) -> None:
    import wandb  # here and below: who does not ask for a tracker need not have it

    wandb.log({name: wandb.Image(str(file)), "train/global_step": step})


def _to_tensorboard(callback: Any, name: str, file: Path, step: int) -> None:
    callback.tb_writer.add_image(name, matplotlib.image.imread(file), step, dataformats="HWC")


def _to_trackio(callback: Any, name: str, file: Path, step: int) -> None:
    import trackio

    trackio.log({name: trackio.Image(str(file)), "train/global_step": step})


def _to_mlflow(callback: Any, name: str, file: Path, step: int) -> None:
    import mlflow

    mlflow.log_artifact(str(file), "figures")


FIGURES: Mapping[str, Callable[[Any, str, Path, int], None]] = {
    "wandb": _to_wandb,
    "tensorboard": _to_tensorboard,
    "trackio": _to_trackio,
    "mlflow": _to_mlflow,
}
"""Tracker -> function that gives it a figure once its run has begun; other trackers get numbers alone."""


def report_analysis(
    args: Any,
    question: str,
    logs: Logs,
    name: str,
    *,
    folder: Path | None = None,
    recorded: Mapping[str, Any] | None = None,
) -> None:
    """Give the numbers of a finished analysis and its figures to the trackers that `report_to` names.

    For the main process alone. A tracker that fails is told of in one line, and stops nothing.

    Args:
        args: The recipe's arguments, `TrackedArguments` among them.
        question: What stands before each name: `analysis`, `cross`, `evaluation`, `comparison`, `reproduction`.
        logs: The numbers.
        name: What the run is called, such as the name of the model.
        folder: The output folder; the arguments' `output_dir` when None.
        recorded: The settings that trackers show, where a file of its own has them; the arguments when None.
    """
    assert is_own(f"{question}/"), "trackers would have its names behind train/"
    if not args.report_to:
        return
    folder = folder or Path(args.output_dir)
    settings = _Settings(output_dir=str(folder), report_to=args.report_to, run_name=name, project=PROJECT)
    settings.analysis = settings_to_record((args,)) if recorded is None else plain(without_secrets(recorded))
    if not settings.report_to:  # "none"
        return
    names = {kind: tracker for tracker, kind in INTEGRATION_TO_CALLBACK.items()}
    callbacks = [kind() for kind in get_reporting_integration_callbacks(settings.report_to)]
    for callback in callbacks:
        if names[type(callback)] == "tensorboard" and callback.logging_dir is None:
            callback.logging_dir = str(folder / TENSORBOARD_DIR)
    if "wandb" in settings.report_to:
        start_wandb(
            folder,
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            entity=None,
            group=question,
            name=name,
            config=settings.analysis,
            resume=True,
            tags=[PROJECT, question],
        )
    handler = CallbackHandler([DefaultFlowCallback(), *callbacks], None, None, None, None)
    protect_trackers(SimpleNamespace(callback_handler=handler))
    state, control = TrainerState(is_world_process_zero=True, is_local_process_zero=True), TrainerControl()
    handler.on_train_begin(settings, state, control)
    for step, numbers in logs:
        state.global_step = step
        known = {f"{question}/{key}": float(value) for key, value in numbers.items() if value is not None}
        handler.on_log(settings, state, control, known)
    for callback in callbacks:
        tracker = names[type(callback)]
        for file in sorted((folder / "figures").glob("*.png")):
            if tracker in FIGURES:
                with tracker_errors_told(tracker):
                    FIGURES[tracker](callback, f"{question}/{file.stem}", file, state.global_step)
    handler.on_train_end(settings, state, control)
    if "wandb" in settings.report_to:
        print(f"W&B: {finish_wandb(None, None)}")


def with_ends(name: str, entry: Mapping[str, Any] | None) -> dict[str, float | None]:
    """A number under its name, and the ends of its 95 % interval under `NAME_low` and `NAME_high`."""
    if entry is None:
        return {}
    return {name: entry["value"], f"{name}_low": entry.get("low"), f"{name}_high": entry.get("high")}
