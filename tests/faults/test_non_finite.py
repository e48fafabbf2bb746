"""Numbers that are not finite, put into every quantity of an update: the update is not made."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from faults.injection import Fault, assert_stopped_before, inject, recorded_parameters
from helpers.tiny_training import SETTINGS, digit_reward
from transformers import TrainerCallback
from trl import GRPOTrainer

from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer
from tokenshift.trainer.guard.errors import NonFiniteUpdateError
from tokenshift.trainer.guard.post_mortem import save_batches

UPDATE = 3
Due = Callable[[], bool]


def broken_reward(value: float) -> Callable[[Any, Due], None]:
    def apply(trainer: Any, is_due: Due) -> None:
        def broken(completions: list[str], **columns: Any) -> list[float]:
            rewards = digit_reward(completions)
            return [value, *rewards[1:]] if is_due() else rewards

        broken.__name__ = "digit_reward"
        trainer.reward_funcs = [broken]

    return apply


def broken_method(name: str, spoil: Callable[[Any], Any]) -> Callable[[Any, Due], None]:
    """A method of the trainer whose result is spoilt."""

    def apply(trainer: Any, is_due: Due) -> None:
        method = getattr(trainer, name)

        def broken(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            return spoil(result) if trainer.model.training and is_due() else result

        setattr(trainer, name, broken)

    return apply


def with_nan(values: torch.Tensor) -> torch.Tensor:
    """The values with NaN in one place, through which gradients flow."""
    spoilt = torch.ones_like(values)
    spoilt.view(-1)[0] = torch.nan
    return values * spoilt


def broken_input(key: str) -> Callable[[Any, Due], None]:
    """A tensor of the loss's inputs that is spoilt."""

    def apply(trainer: Any, is_due: Due) -> None:
        method = trainer._compute_loss

        def broken(model: Any, inputs: dict[str, Any]) -> Any:
            if is_due():
                inputs[key][:] = torch.nan  # in place: the guard keeps a reference
            return method(model, inputs)

        trainer._compute_loss = broken

    return apply


def broken_function(name: str) -> Callable[[Any, Due], None]:
    """A function that the weighting is made by, in the trainer's module."""

    def apply(trainer: Any, is_due: Due) -> None:
        import tokenshift.trainer.grpo as module

        function = getattr(module, name)

        def broken(*args: Any, **kwargs: Any) -> Any:
            values = function(*args, **kwargs)
            return with_nan(values) if is_due() else values

        setattr(module, name, broken)

    return apply


class SpoilGradient(TrainerCallback):
    """After the gradient norm was taken, and before the step."""

    def __init__(self, trainer: Any, is_due: Due) -> None:
        self.trainer, self.is_due = trainer, is_due

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        if self.is_due():
            next(p for p in self.trainer.model.parameters() if p.grad is not None).grad.view(-1)[0] = torch.inf


def gradient_by_hook(trainer: Any, is_due: Due) -> None:
    parameter = next(iter(trainer.model.parameters()))
    parameter.register_hook(lambda gradient: gradient * torch.nan if is_due() else gradient)


def gradient_by_callback(trainer: Any, is_due: Due) -> None:
    trainer.add_callback(SpoilGradient(trainer, is_due))


def learning_rate(trainer: Any, is_due: Due) -> None:
    class Spoil(TrainerCallback):
        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            if is_due():
                trainer.optimizer.param_groups[0]["lr"] = float("nan")

    trainer.add_callback(Spoil())


LOGPS = "_get_per_token_logps_and_entropies"
FAULTS = (
    Fault("advantage", broken_input("advantages"), "the advantage is NaN at 4 of 4 values"),
    Fault("old log-probabilities", broken_input("old_per_token_logps"), "the log-probabilities of the rollout policy"),
    Fault("divergence", broken_function("sampled_divergence"), "the divergence is NaN at 1 of "),
    Fault("weight", broken_function("token_values"), "the weight is NaN at 1 of "),
    Fault("loss", broken_method("_compute_loss", lambda loss: loss * torch.nan), "the loss is NaN at 1 of 1 values"),
    Fault("infinite loss", broken_method("compute_loss", lambda loss: loss + torch.inf), "the loss is inf"),
    Fault("gradient", gradient_by_hook, "the gradient norm is not finite"),
    Fault("gradient after its norm", gradient_by_callback, "the gradient norm is not finite"),
    Fault("learning rate", learning_rate, "the optimizer's lr is nan"),
    Fault("infinite reward", broken_reward(float("-inf")), "the reward digit_reward is -inf at 1 of "),
    Fault("huge reward", broken_reward(1e38), "the reward digit_reward is 1e+38 at 1 of 8 values"),
)


@pytest.fixture
def make(tiny_model: str, problems: Dataset, tmp_path: Path) -> Callable[..., DivergenceGRPOTrainer]:
    def build(**settings: Any) -> DivergenceGRPOTrainer:
        own = {"save_strategy": "steps", "save_steps": 1, "num_iterations": 2, "save_only_model": True}
        args = DivergenceGRPOConfig(**{**SETTINGS, "output_dir": str(tmp_path), **own, **settings})
        return DivergenceGRPOTrainer(model=tiny_model, reward_funcs=digit_reward, args=args, train_dataset=problems)

    return build


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_an_update_that_is_not_finite_is_not_made(
    make: Callable[..., DivergenceGRPOTrainer], fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tokenshift.trainer.grpo as module

    for name in ("sampled_divergence", "token_values"):  # put back afterwards
        monkeypatch.setattr(module, name, getattr(module, name))
    trainer = make(**({"scale_rewards": "none", "num_iterations": 1} if "reward" in fault.name else {}))
    with recorded_parameters(trainer) as record:
        inject(trainer, fault, UPDATE)
        with pytest.raises(NonFiniteUpdateError) as error:
            trainer.train()
    said = str(error.value)
    assert said.startswith(f"At update {UPDATE} ")
    assert fault.first in said
    assert f"The last good checkpoint is {tmp_path / f'checkpoint-{UPDATE - 1}'}" in said
    assert "\n" not in said
    assert_stopped_before(trainer, record, UPDATE, tmp_path)


UNWEIGHTED = {"advantage_weighting": "none", "num_iterations": 2}
ACCUMULATED = {**UNWEIGHTED, "max_grad_norm": 0.0, "gradient_accumulation_steps": 2, "steps_per_generation": 4}
NAN_LOGPS = "the log-probabilities of LlamaForCausalLM are NaN at 1 of "
OTHER_FAULTS = (
    ("log-probabilities", {}, NAN_LOGPS),
    ("log-probabilities", {"divergence": "js", "divergence_reference": "base"}, NAN_LOGPS),
    ("log-probabilities", UNWEIGHTED, NAN_LOGPS),
    ("loss", ACCUMULATED, "the loss is NaN at 1 of 1 values"),
)


@pytest.mark.parametrize(("quantity", "settings", "first"), OTHER_FAULTS)
def test_every_way_to_train_is_guarded(
    make: Callable[..., DivergenceGRPOTrainer],
    quantity: str,
    settings: dict[str, Any],
    first: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stock = GRPOTrainer._get_per_token_logps_and_entropies
    trainer = make(**settings)
    with recorded_parameters(trainer) as record:
        if quantity == "loss":
            inject(
                trainer, Fault("loss", broken_method("_compute_loss", lambda loss: loss * torch.nan), first), UPDATE
            )
        else:

            def apply(trainer: Any, is_due: Due) -> None:
                def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
                    logps, *others = stock(self, *args, **kwargs)
                    in_training = self._in_training_loss and torch.is_grad_enabled()
                    return (with_nan(logps) if in_training and is_due() else logps, *others)

                monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", broken)

            inject(trainer, Fault("log-probabilities", apply, first), UPDATE)
        with pytest.raises(NonFiniteUpdateError) as error:
            trainer.train()
    assert first in str(error.value)
    assert_stopped_before(trainer, record, UPDATE, tmp_path)


def test_a_batch_that_cannot_be_saved_leaves_no_torn_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(content: Any, file: Path) -> None:
        file.write_bytes(b"half of it")
        raise RuntimeError("PytorchStreamWriter failed writing file data/1: file write failed")

    monkeypatch.setattr(torch, "save", fail)
    trainer = SimpleNamespace(args=SimpleNamespace(output_dir=str(tmp_path)))
    said = save_batches(trainer, [], {"update": 3, "rank": 0})
    assert "could not be saved" in said
    assert list((tmp_path / "post_mortem").iterdir()) == []


def test_the_batch_is_saved_for_a_post_mortem(make: Callable[..., DivergenceGRPOTrainer], tmp_path: Path) -> None:
    trainer = make()
    inject(trainer, Fault("loss", broken_method("_compute_loss", lambda loss: loss * torch.nan), "loss"), 1)
    with pytest.raises(NonFiniteUpdateError, match=r"There is no checkpoint yet\.") as error:
        trainer.train()
    file = tmp_path / "post_mortem" / "update_1_rank_0.pt"
    assert f"its batch is in {file}" in str(error.value)
    saved = torch.load(file, weights_only=True)
    assert saved["update"] == 1
    assert saved["first"] == "loss is NaN at 1 of 1 values"
    assert saved["also"] == ["gradient"]
    (batch,) = saved["batches"]
    assert batch["completion_ids"].shape == batch["old_per_token_logps"].shape
    assert len(batch["prompts"]) == len(batch["completions"]) == len(batch["advantages"]) == 4
    assert all("?" in prompt or "=" in prompt for prompt in batch["prompts"])


def test_rewards_that_give_no_advantages_are_counted(make: Callable[..., DivergenceGRPOTrainer], caplog: Any) -> None:
    def sometimes(completions: list[str], **columns: Any) -> list[float | None]:
        values: list[float | None] = [float(len(text)) for text in completions]
        values[:4] = [float("nan"), float("inf"), None, -1e38]
        return values

    trainer = make(num_iterations=1, save_strategy="no", max_steps=2, logging_steps=2)
    trainer.reward_funcs, trainer.reward_func_names = [sometimes], ["sometimes"]
    trainer.train()
    logged = [log["rewards/sometimes/non_finite"] for log in trainer.state.log_history if "loss" in log]
    assert logged == [3.0], "one generation of two updates; None is no reward, and is none of them"
    assert all(value.isfinite().all() for value in trainer.model.parameters())
    told = [record.getMessage() for record in caplog.records if "sometimes/non_finite" in record.getMessage()]
    assert len(told) == 1
    assert "The reward function sometimes gave nan to 3 of 8 completions of update 1" in told[0]


def test_parameters_that_a_huge_step_made_are_not_saved(
    make: Callable[..., DivergenceGRPOTrainer], tmp_path: Path
) -> None:
    trainer = make(learning_rate=1e30, adam_epsilon=1e-30, weight_decay=1e30, max_steps=2)
    with pytest.raises(
        NonFiniteUpdateError, match=r"some parameters are not finite, so .*checkpoint-\d was not written"
    ):
        trainer.train()
    assert len(list(tmp_path.glob("checkpoint-*"))) <= 1
