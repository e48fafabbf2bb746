"""A callback that ends a run with a checkpoint after Ctrl-C or a scheduler's SIGTERM."""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tokenshift.trainer.resume.process_group import ended_ranks


class CheckpointOnSignal(TrainerCallback):
    """After SIGINT or SIGTERM, finish the update, save a checkpoint and stop; all ranks at the same update.

    A second Ctrl-C, more than two seconds later (a launcher may repeat the first), stops at once without a checkpoint.

    Attributes:
        stopped: whether a signal ended the run.
    """

    signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.stopped = False
        self._received: float | None = None
        self._previous: dict[int, Any] = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._received is None:
            self._received = now
            if PartialState().is_main_process and not ended_ranks():  # a launcher ends the others so
                line = (
                    f"\n{signal.Signals(number).name}: stopping after this update, with a checkpoint. "
                    "Ctrl-C again stops at once, without one."
                )
                try:
                    print(line, flush=True)
                except RuntimeError:  # the signal came in the middle of another line
                    os.write(1, f"{line}\n".encode())
        elif number == signal.SIGINT and now - self._received > 2:
            raise KeyboardInterrupt

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if getattr(signal.getsignal(signal.SIGINT), "received", False):
            raise KeyboardInterrupt  # it came before training and was lost
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._on_signal) for number in self.signals}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        distributed = PartialState()
        flag = torch.tensor(float(self._received is not None), device=distributed.device)
        if distributed.num_processes > 1:
            flag = reduce(flag, reduction="sum")
        if flag > 0:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
