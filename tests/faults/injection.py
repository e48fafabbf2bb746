"""A small harness of faults: what is broken, when, and what must hold afterwards.

A fault is a context that breaks one thing of a trainer at one update. The assertions afterwards are the same for all
of them: the update before is what the parameters are, nothing was saved after it, and the message says what happened.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Fault:
    """A fault of an update.

    Attributes:
        name: of the fault, for the table of outcomes.
        apply: breaks a trainer: `apply(trainer, is_due)`, where `is_due()` is true in the update that it strikes.
        first: the quantity that the message must name as the first that is not finite.
    """

    name: str
    apply: Callable[[Any, Callable[[], bool]], None]
    first: str


@contextmanager
def recorded_parameters(trainer: Any) -> Iterator[dict[int, dict[str, torch.Tensor]]]:
    """The parameters after each update: number of updates -> name -> value. They are taken before each step."""
    record: dict[int, dict[str, torch.Tensor]] = {}
    step = trainer.training_step

    def recorded(*args: Any, **kwargs: Any) -> Any:
        record.setdefault(trainer.state.global_step, _copied(trainer))
        return step(*args, **kwargs)

    trainer.training_step = recorded
    yield record
    record["end"] = _copied(trainer)  # type: ignore[index]


def inject(trainer: Any, fault: Fault, update: int) -> None:
    """Break a trainer at an update, counted from 1, once."""
    struck = False

    def is_due() -> bool:
        nonlocal struck
        if struck or trainer.state.global_step + 1 != update:
            return False
        struck = True
        return True

    fault.apply(trainer, is_due)


def assert_stopped_before(
    trainer: Any, record: dict[Any, dict[str, torch.Tensor]], update: int, output_dir: Path
) -> None:
    """Assert after a fault at an update: parameters are as before it and finite, no checkpoint is of it or later."""
    assert trainer.state.global_step == update - 1
    assert all(value.isfinite().all() for value in record["end"].values())
    before = record[update - 1]
    assert all(torch.equal(before[name], value) for name, value in record["end"].items())
    saved = sorted(int(folder.name.split("-")[1]) for folder in output_dir.glob("checkpoint-*"))
    assert saved == list(range(1, update)), "every update before the fault was saved, and none from it on"


def _copied(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
