"""Progress of a training: TRL's live panels, or one line per log where there is no terminal."""

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import RichProgressCallback

from tokenshift.trainer.tracking.metrics import ADDED, HEADLINE, POSITION, is_probe

SHORT: Mapping[str, str] = {**HEADLINE, **ADDED}
"""Short labels of what is shown first -> names of the metrics."""

FIRST = "at a glance"
"""Title of the first panel."""


def at_a_glance(logs: Mapping[str, Any]) -> dict[str, Any]:
    """The scalars to look at first, of those that were logged, by their short labels."""
    return {label: logs[name] for label, name in SHORT.items() if name in logs}


class PanelProgress(RichProgressCallback):
    """TRL's live panels, with three significant digits: divergences are small. The last metrics stay on screen.

    The first panel has the scalars to look at first, those of the last shift probe among them. The numbers by
    position, and the probe's others, are in the log history and the trackers alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self._glance: dict[str, Any] = {}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "train_runtime" in logs:
            return
        self._glance |= at_a_glance(logs)
        metrics = {f"{FIRST}/{label}": self._glance[label] for label in SHORT if label in self._glance}
        metrics |= {name: value for name, value in logs.items() if not POSITION.fullmatch(name) and not is_probe(name)}
        shown = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in metrics.items()}
        super().on_log(args, state, control, logs=shown, **kwargs)


class LineProgress(TrainerCallback):
    """One line per log, for output that is not a terminal."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        shown = [f"{label} {value:.4g}" for label, value in at_a_glance(logs or {}).items()]
        if shown and state.is_world_process_zero:
            print(f"update {state.global_step}/{state.max_steps}  {'  '.join(shown)}", flush=True)
