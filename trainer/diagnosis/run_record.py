"""Reads the logs, the settings and the summary that a training left in its output folder."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenshift.analysis.storage.checkpoints import TRAINER_STATE, candidates_of, newest_usable
from tokenshift.analysis.storage.json_files import read_json
from tokenshift.trainer.diagnosis.saved_settings import read_settings
from tokenshift.trainer.diagnosis.series import Series

LOG_HISTORY_FILE, SUMMARY_FILE = "log_history.json", "summary.json"
SETTINGS_FILE = "training_args.bin"

SHOWN = frozenset(("loss", "grad_norm", "reward"))
"""Metrics of which a training's own logs have one."""

FEWEST_LOGS = 5
"""Signs that are about a run as a whole need at least so many logs: of fewer, a median or a trend says nothing."""

FEWEST_GENERATIONS = 3
"""Logs that signs need which are shares of a whole generation's completions: each is a mean of many already."""


@dataclass(frozen=True)
class RunRecord:
    """A training, as the signs look at it.

    Attributes:
        logs: what was logged, in order, as in the trainer's state: dictionaries with `step`.
        settings: the fields of the training's config, as far as they are known.
        summary: of `summary.json`; empty where the training has not ended.
        folder: the output folder; None if there is none.
    """

    logs: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def series(self, name: str) -> Series:
        """The logged values of a metric."""
        found = [
            (int(log["step"]), float(log[name]))
            for log in self.logs
            if _is_number(log.get(name)) and _is_step(log.get("step"))
        ]
        return Series(name, tuple(step for step, _ in found), tuple(value for _, value in found))

    def names(self, pattern: str) -> list[str]:
        """The logged metrics whose whole name matches a regular expression, in order of appearance."""
        return list(dict.fromkeys(name for log in self.logs for name in log if re.fullmatch(pattern, name)))

    @property
    def steps(self) -> list[int]:
        """The updates that a training's log was written at."""
        return [int(log["step"]) for log in self.logs if _is_step(log.get("step")) and SHOWN & log.keys()]

    @property
    def warmup(self) -> int:
        """The number of updates of the learning rate's warm-up; 0 where it is not known.

        transformers takes a number below 1 as a share of all updates.
        """
        given: Any = self.settings.get("warmup_steps")
        if not _is_step(given) or given < 0:
            return 0
        return math.ceil(given * max(self.steps, default=0)) if given < 1 else int(given)

    @property
    def updates_per_generation(self) -> float | None:
        """Optimizer updates that are made on one generation's completions; None where it is not known."""
        try:
            steps, iterations = self.settings["steps_per_generation"], self.settings["num_iterations"]
            return float(steps * iterations / self.settings["gradient_accumulation_steps"])
        except (KeyError, TypeError, ZeroDivisionError):
            return None


def _is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold, NaN and infinity included."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _is_step(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)


def read_run(folder: Path) -> RunRecord:
    """The record of a training's output folder: of its newest state, of a run that is going on too.

    Raises:
        ValueError: if the folder holds no logs of a training.
    """
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is no folder; give the output_dir of a training.")
    candidates = candidates_of(folder)
    if all(left is not None for _, left in candidates):  # then the run has not saved since, and these are its logs
        candidates = [(checkpoint, None) for checkpoint, _ in candidates]
    newest, _ = newest_usable(candidates, _fault_of_state)
    histories = [_read(folder / LOG_HISTORY_FILE)]
    if newest is not None:
        histories.append(_read(newest / TRAINER_STATE).get("log_history"))
    logs = max((_logs(history) for history in histories), key=lambda found: found[-1]["step"] if found else -1)
    if not logs:
        raise ValueError(
            f"{str(folder)!r} has neither {LOG_HISTORY_FILE} nor a checkpoint with logs in its {TRAINER_STATE}; give "
            "the output_dir of a training that has saved once."
        )
    kept = [checkpoint for checkpoint, left in candidates if left is None]
    files = [path / SETTINGS_FILE for path in (*kept, folder)]
    settings = next((read_settings(file) for file in files if file.is_file()), {})
    summary = _read(folder / SUMMARY_FILE)
    return RunRecord(logs, settings, summary if isinstance(summary, dict) else {}, folder)


def _read(file: Path) -> Any:
    """A JSON file's content; None if it is not there or cannot be read."""
    try:
        return read_json(file)
    except (OSError, ValueError):
        return None


def _fault_of_state(checkpoint: Path) -> str | None:
    """The reason why a checkpoint's logs cannot be read; None where they can."""
    return None if isinstance(_read(checkpoint / TRAINER_STATE), dict) else f"{TRAINER_STATE} cannot be read"


def _logs(history: Any) -> list[dict[str, Any]]:
    entries = history if isinstance(history, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and _is_step(entry.get("step"))]
