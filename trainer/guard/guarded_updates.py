"""A trainer whose updates are looked at before they are made, and whose trackers stop nothing."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tokenshift.analysis.secrets import hide_in_text
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.trainer.guard.trackers import is_of_tracker, protect_trackers, tell_of_tracker
from tokenshift.trainer.guard.update_guard import UpdateGuard

if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object


class _AttachGuard(TrainerCallback):
    """Attaches the guard when the optimizer is prepared."""

    def __init__(self, guard: UpdateGuard) -> None:
        self._guard = guard

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._guard.attach(kwargs.get("optimizer"))


class GuardedUpdates(_Base):
    """Mixin of transformers' trainers: an update with a loss or a gradient that is not finite stops the run.

    It is stopped on all ranks before the optimizer's step, and nothing is saved after it; parameters that are not
    finite are not saved either. A tracker that raises stops nothing. Training is otherwise bit for bit the same.

    Raises:
        NonFiniteUpdateError: in training, in one line.
    """

    not_kept: tuple[str, ...] = ()
    """Keys of the loss's inputs that are too large to keep until the step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.guard = UpdateGuard(self, self.not_kept)
        super().__init__(*args, **kwargs)
        self.add_callback(_AttachGuard(self.guard))

    def add_callback(self, callback: Any) -> None:
        super().add_callback(callback)
        protect_trackers(self)  # transformers adds one itself, after it has made the trackers'

    def log(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().log(*args, **kwargs)
        except Exception as error:  # TRL gives W&B and trackio the completions itself, after all else
            name = is_of_tracker(error)
            if name is None:
                raise
            tell_of_tracker(name, error)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if not model.training:
            return super().compute_loss(model, inputs, *args, **kwargs)
        self.guard.see_batch(inputs)
        result = super().compute_loss(model, inputs, *args, **kwargs)
        if self.guard.steps_inside_backward:
            self.guard.check_loss_now(result[0] if isinstance(result, tuple) else result)
        return result

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        self.guard.see_loss(loss)
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        norm = super()._get_grad_norm(*args, **kwargs)
        self.guard.see_gradient_norm(norm)
        return norm

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        super().create_model_card(*args, **kwargs)
        card = Path(str(self.args.output_dir)) / "README.md"
        if self.is_world_process_zero() and card.is_file():
            text = card.read_text(encoding="utf-8")
            if hide_in_text(text) != text:
                write_whole(card, text)  # which hides them

    def save_model(self, output_dir: str | None = None, *args: Any, **kwargs: Any) -> None:
        self.guard.check_parameters(str(output_dir or self.args.output_dir))
        super().save_model(output_dir, *args, **kwargs)
