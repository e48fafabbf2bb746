"""Trackers (W&B, TensorBoard, MLflow, ...) that never stop a training: what they raise is told in one line.

Logs that a tracker did not take are kept and given to it again, at growing intervals and once more at the end. All
logs are in `trainer_state.json` of the checkpoints anyway.
"""

import copy
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from accelerate.logging import get_logger
from transformers import integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from tokenshift.analysis.registry import close_match
from tokenshift.analysis.secrets import hide_in_text, hide_in_words, hide_secrets
from tokenshift.trainer.tracking.metrics import documented, is_probe, position_charts

logger = get_logger(__name__)

EVENTS = (
    *("on_init_end", "on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_step_begin"),
    *("on_step_end", "on_substep_end", "on_evaluate", "on_predict", "on_save", "on_log", "on_push_begin"),
)
"""Events of transformers' callbacks by which a tracker works."""

PACKAGES: Mapping[str, tuple[str, Callable[[], bool]]] = {
    "azure_ml": ("azureml-core", integrations.is_azureml_available),
    "clearml": ("clearml", integrations.is_clearml_available),
    "codecarbon": ("codecarbon", integrations.is_codecarbon_available),
    "comet_ml": ("comet_ml", integrations.is_comet_available),
    "dagshub": ("dagshub mlflow", integrations.is_dagshub_available),
    "dvclive": ("dvclive", integrations.is_dvclive_available),
    "flyte": ("flytekit", integrations.is_flytekit_available),
    "mlflow": ("mlflow", integrations.is_mlflow_available),
    "neptune": ("neptune", integrations.is_neptune_available),
    "swanlab": ("swanlab", integrations.is_swanlab_available),
    "tensorboard": ("tensorboard", integrations.is_tensorboard_available),
    "trackio": ("trackio", integrations.is_trackio_available),
    "wandb": ("wandb", integrations.is_wandb_available),
}
"""Values of `report_to` -> the packages to install, and whether they are there. Kubeflow needs none."""

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0
"""Seconds until a tracker that failed is tried again: at first, and at most."""

WAITING = {"WANDB_INIT_TIMEOUT": "30", "WANDB_FINISH_TIMEOUT": "60"}
"""Seconds that W&B may take to begin and to end a run: what is not uploaded by then is on disk, for `wandb sync`."""

_told: set[str] = set()


def check_trackers(report_to: Any) -> None:
    """Refuse a tracker that is unknown or not installed, before anything is loaded.

    Args:
        report_to: the config's; a list of names or one name.

    Raises:
        ValueError: for such a tracker.
    """
    for name in [report_to] if isinstance(report_to, str) else report_to or ():
        if name in ("none", "all"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(INTEGRATION_TO_CALLBACK)
            raise ValueError(
                f"report_to has {name!r}, which is no tracker{close_match(name, INTEGRATION_TO_CALLBACK) or ''}; "
                f"known are {known}, and none."
            )
        if name in PACKAGES and not PACKAGES[name][1]():
            raise ValueError(
                f"report_to has {name!r}, which is not installed: pip install {PACKAGES[name][0]}, or leave it out."
            )


@contextmanager
def tracker_errors_told(name: str) -> Iterator[None]:
    """Tell once of what a tracker raises, and go on.

    Args:
        name: the tracker's name in `report_to`.
    """
    try:
        yield
    except Exception as error:  # whatever a tracker raises
        tell_of_tracker(name, error)


def tell_of_tracker(name: str, error: Exception, outcome: str = "training goes on without it") -> None:
    """Log a tracker's error in one line, once per tracker and process.

    Args:
        name: the tracker's name in `report_to`.
        error: what it raised.
        outcome: what happens now.
    """
    if name in _told:
        return
    _told.add(name)
    logger.warning(
        f"{name} failed ({reason_of(error)}): {outcome}; all logs are in trainer_state.json of the checkpoints.",
        main_process_only=False,
    )


def reason_of(error: Exception) -> str:
    """An error in one line, shortened."""
    return hide_in_text(f"{type(error).__name__}: {' '.join(str(error).split())}")[:300]


def is_of_tracker(error: BaseException) -> str | None:
    """The tracker whose code raised an error, of the two that TRL gives completions itself; None if neither did."""
    trace = error.__traceback__
    while trace is not None:
        package = str(trace.tb_frame.f_globals.get("__name__", "")).split(".", 1)[0]
        if package in ("wandb", "trackio"):
            return package
        trace = trace.tb_next
    return None


def protect_trackers(trainer: Any) -> None:
    """Let no tracker of a trainer raise; those that are protected already stay as they are.

    Args:
        trainer: any trainer of transformers'.
    """
    for variable, seconds in WAITING.items():
        os.environ.setdefault(variable, seconds)
    names = {kind: name for name, kind in INTEGRATION_TO_CALLBACK.items()}
    for callback in trainer.callback_handler.callbacks:
        name = names.get(type(callback))
        if name is not None and not hasattr(callback, "tokenshift_protection"):
            callback.tokenshift_protection = _Protection(callback, name)


class _Protection:
    """Puts itself between a trainer and one tracker's callback, whose class stays what it is.

    Args:
        callback: the tracker's.
        name: its name in `report_to`.
    """

    def __init__(self, callback: Any, name: str) -> None:
        self._callback, self._name = callback, name
        self._methods = {event: getattr(callback, event) for event in EVENTS}
        self._waiting: list[tuple[tuple[Any, ...], dict[str, Any]]] = []  # logs that it did not take
        self._pause, self._next_try = FIRST_PAUSE, 0.0
        self._settings: tuple[Any, Any] | None = None  # the trainer's config, and without secrets
        for event in EVENTS:
            setattr(callback, event, self._caller(event))

    def _caller(self, event: str) -> Callable[..., None]:
        def call(settings: Any, *others: Any, **kwargs: Any) -> None:
            args = (self._without_secrets(settings), *others)
            if event == "on_log":
                self._log(args, kwargs)
                return
            if event == "on_train_end":
                self._give_waiting(at_end=True)
            self._try(event, args, kwargs)

        return call

    def _try(self, event: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Call the tracker; whether it raised nothing."""
        words = sys.argv
        try:
            sys.argv = hide_in_words(words)  # trackers record it
            with documented():
                if self._name == "wandb" and event in ("on_train_begin", "on_log"):
                    self._call_wandb(event, args, kwargs)
                else:
                    self._methods[event](*args, **kwargs)
            return True
        except Exception as error:  # whatever a tracker raises
            if event == "on_train_begin":
                if hasattr(self._callback, "_initialized"):
                    self._callback._initialized = False  # set up again with the next log
                if self._name == "wandb" and _begin_offline(args[0], error):
                    return self._try(event, args, kwargs)
            outcome = "it is tried again, and training goes on"
            tell_of_tracker(self._name, error, outcome)
            return False
        finally:
            sys.argv = words

    def _call_wandb(self, event: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin a run with a name where it has none, or log what `ShiftProbeCallback` does not log itself."""
        logs = kwargs.get("logs")
        if logs:
            shown = {name: value for name, value in logs.items() if not is_probe(name)}
            if not shown:
                return
            kwargs = {**kwargs, "logs": position_charts(shown)}
        config = getattr(kwargs.get("model"), "config", None)
        with _named(args[0], getattr(config, "_name_or_path", None)):
            self._methods[event](*args, **kwargs)

    def _without_secrets(self, settings: Any) -> Any:
        """A copy of the trainer's config, made once, whose texts hold no secret."""
        if self._settings is None or self._settings[0] is not settings:
            hidden = copy.copy(settings)
            for name, value in vars(settings).items():
                if (without := hide_secrets(value, name)) is not value:
                    object.__setattr__(hidden, name, without)
            self._settings = (settings, hidden)
        return self._settings[1]

    def _log(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # the trainer's state and logs are changed afterwards
        settings, state, *others = args
        copied = (
            (settings, copy.copy(state), *others),
            {name: dict(value) if name == "logs" and value is not None else value for name, value in kwargs.items()},
        )
        self._waiting.append(copied)
        if time.monotonic() >= self._next_try:
            self._give_waiting()

    def _give_waiting(self, at_end: bool = False) -> None:
        while self._waiting:
            if not self._try("on_log", *self._waiting[0]):
                self._next_try = time.monotonic() + self._pause
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
                break
            self._waiting.pop(0)
            self._pause, self._next_try = FIRST_PAUSE, 0.0
        if at_end and self._waiting:
            logger.warning(
                f"{self._name} did not take {len(self._waiting)} logs; they are in trainer_state.json of checkpoints."
            )


def _named(args: Any, model: str | None = None) -> AbstractContextManager[None]:
    """Give a W&B run that begins inside its names by default."""
    from tokenshift.trainer.tracking.run_names import names_by_default  # here: it imports the config, which imports us

    return names_by_default(args, model)


def _begin_offline(args: Any, error: Exception) -> bool:
    """Begin a W&B run offline where none could be begun online; whether it was."""
    import wandb  # here: who has no W&B trains without

    if wandb.run is not None:
        return False
    with tracker_errors_told("wandb"), _named(args):
        project = os.environ.get("WANDB_PROJECT", "huggingface")
        run = wandb.init(project=project, name=args.run_name, mode="offline")
        logger.warning(
            f"W&B cannot be used online ({reason_of(error)}): this run is tracked offline. To upload it: wandb sync "
            f"{os.path.dirname(run.dir)}"
        )
        return True
    return False
