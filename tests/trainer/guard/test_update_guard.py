"""Where the step cannot be waited for: inside a backward pass, or left out by float16's loss scaling."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType

from tokenshift.trainer.guard import update_guard
from tokenshift.trainer.guard.errors import NonFiniteUpdateError
from tokenshift.trainer.guard.update_guard import MOST_OVERFLOWS, UpdateGuard

NAN = torch.tensor(torch.nan)


def made_trainer(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Any:
    """A stand-in for a trainer with all that a guard reads, on one process."""
    monkeypatch.setattr(update_guard, "gather_object", lambda values: values)
    accelerator = SimpleNamespace(
        device=torch.device("cpu"),
        num_processes=1,
        process_index=0,
        scaler=settings.get("scaler"),
        distributed_type=settings.get("distributed_type", DistributedType.NO),
        wait_for_everyone=lambda: None,
        unwrap_model=lambda model: model,
    )
    args = SimpleNamespace(output_dir=str(folder), optim=settings.get("optim", "adamw_torch"), fp16=False)
    model, tokenizer = torch.nn.Linear(2, 2), SimpleNamespace()
    state = SimpleNamespace(global_step=6)
    return SimpleNamespace(accelerator=accelerator, args=args, model=model, state=state, processing_class=tokenizer)


@pytest.mark.parametrize(
    "settings",
    [{"distributed_type": DistributedType.DEEPSPEED}, {"optim": "lomo"}, {"optim": "galore_adamw_layerwise"}],
)
def test_a_step_inside_backward_is_guarded_by_the_loss_and_said(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(update_guard.logger, "warning", said.append)
    trainer = made_trainer(tmp_path, monkeypatch, **settings)
    guard = UpdateGuard(trainer)
    optimizer = torch.optim.SGD(trainer.model.parameters(), lr=1.0)
    guard.attach(optimizer)
    (line,) = said
    assert "makes the optimizer's step inside the backward pass: the loss is checked before it" in line
    guard.check_loss_now(torch.tensor(1.0))
    with pytest.raises(NonFiniteUpdateError, match=r"^At update 7 the loss is NaN at 1 of 1 values\. The update was"):
        guard.check_loss_now(NAN)
    guard.see_gradient_norm(torch.tensor(2.0))
    with pytest.raises(NonFiniteUpdateError, match=r"the gradient norm is not finite\. The update was made already"):
        guard.see_gradient_norm(NAN)


def test_scaled_losses_may_overflow_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = made_trainer(tmp_path, monkeypatch, scaler=object())
    guard = UpdateGuard(trainer)
    guard.attach(torch.optim.SGD(trainer.model.parameters(), lr=1.0))

    def update(loss: torch.Tensor, norm: torch.Tensor) -> None:
        guard.see_loss(loss)
        guard.see_gradient_norm(norm)

    for _ in range(3):
        for _ in range(MOST_OVERFLOWS):
            update(torch.tensor(1.0), NAN)
        update(torch.tensor(1.0), torch.tensor(1.0))
    for _ in range(MOST_OVERFLOWS):
        update(torch.tensor(1.0), NAN)
    with pytest.raises(NonFiniteUpdateError, match="the gradient norm is not finite"):
        update(torch.tensor(1.0), NAN)
    with pytest.raises(NonFiniteUpdateError, match="the loss is NaN"):
        update(NAN, torch.tensor(1.0))


def test_a_new_training_is_guarded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = made_trainer(tmp_path, monkeypatch)
    guard, checks = UpdateGuard(trainer), []
    monkeypatch.setattr(guard, "_check_step", checks.append)
    for _ in range(2):
        optimizer = torch.optim.SGD(trainer.model.parameters(), lr=1.0)
        guard.attach(optimizer)
        optimizer.step()
    assert len(checks) == 2
