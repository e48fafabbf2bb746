"""Progress of a training: TRL's live panels, or one line per log where there is no terminal."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import RichProgressCallback

LINE_METRICS = {
    "reward": "reward",
    "D p95": "divergence/p95",
    "D>0.1": "divergence/frac_high",
    "w mean": "advantage_weight/mean",
    "w max": "advantage_weight/max",
    "w active": "advantage_weight/frac_active",
    "bonus mean": "advantage_bonus/mean",
    "bonus max": "advantage_bonus/max",
    "bonus active": "advantage_bonus/frac_active",
}


class PanelProgress(RichProgressCallback):
    """TRL's live panels, with three significant digits: divergences are small. The last metrics stay on screen."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "train_runtime" not in logs:
            shown = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in logs.items()}
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
        values = {label: (logs or {}).get(key) for label, key in LINE_METRICS.items()}
        shown = [f"{label} {value:.4g}" for label, value in values.items() if value is not None]
        if shown and state.is_world_process_zero:
            print(f"update {state.global_step}/{state.max_steps}  {'  '.join(shown)}", flush=True)
