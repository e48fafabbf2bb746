"""Looks at the loss and the gradients of every update before the optimizer's step, on all ranks together.

Only the loss, the gradient norm and the optimizer's own numbers are looked at, with one wait for the device per
update. What came before them (rewards, advantages, log-probabilities, divergences, weights) is kept by reference until
the step, and read where the update has to be refused, to say what was the first that is not finite.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import DistributedType, gather_object

from tokenshift.trainer.guard.errors import NonFiniteUpdateError
from tokenshift.trainer.guard.post_mortem import save_batches
from tokenshift.trainer.guard.reward_counts import LARGEST_REWARD
from tokenshift.trainer.resume.examination import last_whole

logger = get_logger(__name__)

REWARD, ADVANTAGE, LOGPS, DIVERGENCE, WEIGHT, LOSS, GRADIENT = QUANTITIES = (
    *("reward", "advantage", "log-probabilities", "divergence", "weight", "loss", "gradient"),
)
"""Quantities of an update, in the order in which they are computed from each other."""

OTHER_LOGPS = {
    "old_per_token_logps": "log-probabilities of the rollout policy",
    "ref_per_token_logps": "log-probabilities of the reference model",
    "sampling_per_token_logps": "log-probabilities of the rollout engine",
}
"""Keys of TRL's loss inputs -> name in messages; they count as log-probabilities."""

MOST_OVERFLOWS = 20
"""Updates in a row that float16's loss scaling may skip: it halves its factor, 65536 at first, at each one."""

REMEDIES = {
    REWARD: "See to the reward function: advantages need rewards with a mean and a variance in float32.",
    ADVANTAGE: "See to the reward functions and reward_weights.",
    LOGPS: "Training has diverged, or half precision overflows: lower learning_rate, or train in float32 or bfloat16.",
    DIVERGENCE: "See to the divergence, or lower learning_rate.",
    WEIGHT: "See to the weighting and its options.",
    LOSS: "Lower learning_rate or beta, or train in float32 or bfloat16.",
    GRADIENT: "Lower learning_rate, set max_grad_norm, or train in float32 or bfloat16.",
}


@dataclass(frozen=True)
class _Seen:
    """Values of one quantity of a micro-step.

    Attributes:
        quantity: one of `QUANTITIES`.
        name: what the values are, for messages.
        values: of any shape.
        mask: the values that count, bool or 0 and 1, of the same shape; all of them when None.
        rank: the rank that they belong to; the one that holds them when None.
        limit: magnitudes below it are finite. TRL turns infinite advantages into the largest number of float32.
    """

    quantity: str
    name: str
    values: torch.Tensor
    mask: torch.Tensor | None = None
    rank: int | None = None
    limit: float = torch.finfo(torch.float32).max

    def report(self) -> tuple[int, str, int | None] | None:
        """The quantity's place in the order, what is wrong in words, and the rank; None if all values are finite."""
        values = self.values.detach().float()
        if self.mask is not None:
            values = values[self.mask.bool()]
        wrong = ~(values.abs() < self.limit)
        if not bool(wrong.any()):
            return None
        first, count, total = values[wrong].flatten()[0].item(), int(wrong.sum()), values.numel()
        verb = "are" if self.name.startswith("log-probabilities") else "is"
        amount = f" at {count} of {total} {'values' if self.quantity in (REWARD, ADVANTAGE, LOSS) else 'tokens'}"
        said = "NaN" if math.isnan(first) else f"{first:g}"
        return QUANTITIES.index(self.quantity), f"{self.name} {verb} {said}{amount}", self.rank


class UpdateGuard:
    """The guard of one trainer.

    Args:
        trainer: any trainer of transformers' that is a `GuardedUpdates`.
        left_out: keys of a loss's inputs that are too large to keep.
    """

    def __init__(self, trainer: Any, left_out: tuple[str, ...] = ()) -> None:
        self._trainer = trainer
        self._left_out = left_out
        self._seen: list[_Seen] = []
        self._batches: list[dict[str, Any]] = []
        self._losses: list[torch.Tensor] = []
        self._rewards: list[_Seen] = []
        self._norm: torch.Tensor | float | None = None
        self._overflows = 0  # updates in a row that float16's loss scaling skipped
        self._hook: Any = None

    # What an update is made of -----------------------------------------------------------------------------------

    def see(
        self, quantity: str, values: torch.Tensor, mask: torch.Tensor | None = None, name: str | None = None
    ) -> None:
        """Remember values of this update; nothing is computed.

        Args:
            quantity: one of `QUANTITIES`.
            values: of any shape.
            mask: the values that count, of the same shape; all of them when None.
            name: what the values are, for messages.
        """
        self._seen.append(_Seen(quantity, name or quantity, values.detach(), mask))

    def see_rewards(self, name: str, rewards: torch.Tensor) -> None:
        """Remember a reward function's rewards `(R,)` of a generation, of all ranks in rank order."""
        size = len(rewards) // self._trainer.accelerator.num_processes
        for rank in range(self._trainer.accelerator.num_processes):
            values = rewards[rank * size :][:size]
            self._rewards.append(_Seen(REWARD, f"reward {name}", values, ~values.isnan(), rank, LARGEST_REWARD))

    def forget_rewards(self) -> None:
        """To be called when a generation begins."""
        self._rewards = []

    def see_batch(self, inputs: Mapping[str, Any]) -> None:
        """Remember the inputs of a micro-step's loss, by reference."""
        batch = {key: value for key, value in inputs.items() if key not in self._left_out}
        self._batches.append(batch)
        mask = batch.get("completion_mask")
        if "advantages" in batch:
            self.see(ADVANTAGE, batch["advantages"])
        for key, name in OTHER_LOGPS.items():
            if isinstance(batch.get(key), torch.Tensor):
                self.see(LOGPS, batch[key], mask, name)

    def see_loss(self, loss: torch.Tensor) -> None:
        """Remember the loss of a micro-step, a scalar."""
        self._losses.append(loss.detach())

    def see_gradient_norm(self, norm: Any) -> None:
        """Remember the gradient norm of the update; check the update now where its step cannot be waited for.

        Raises:
            NonFiniteUpdateError: on all ranks, if the update is refused.
        """
        self._norm = norm
        if self.steps_inside_backward:
            if norm is not None and not self._trainer.args.fp16 and self._bad([torch.as_tensor(norm)])[0]:
                self._refuse(gradients_bad=True, made=True)
            self._forget()
        elif self._hook is None:
            self._check_norm()

    # Checks ------------------------------------------------------------------------------------------------------

    def attach(self, optimizer: Any) -> None:
        """Check each step of an optimizer before it is made.

        Args:
            optimizer: the trainer's, prepared by accelerate.
        """
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        self._forget()
        if reason := self.steps_inside_backward:
            logger.warning(
                f"{reason} makes the optimizer's step inside the backward pass: the loss is checked before it for "
                "numbers that are not finite, the gradient norm only after the update was made; the run then stops, "
                "and nothing is saved."
            )
            return
        inner = getattr(optimizer, "optimizer", optimizer)
        # steps that float16's loss scaling skips are none, so the update is checked where its gradient norm is taken
        if self._scaler is None and hasattr(inner, "register_step_pre_hook"):
            self._hook = inner.register_step_pre_hook(lambda stepped, args, kwargs: self._check_step(stepped))

    @property
    def steps_inside_backward(self) -> str | None:
        """The setting that makes the optimizer step inside the backward pass, for messages; None if there is none."""
        if self._trainer.accelerator.distributed_type == DistributedType.DEEPSPEED:
            return "DeepSpeed"
        name = str(getattr(self._trainer.args.optim, "value", self._trainer.args.optim))
        return f"optim={name}" if name in ("lomo", "adalomo") or name.endswith("_layerwise") else None

    def check_loss_now(self, loss: torch.Tensor) -> None:
        """Check the loss of a micro-step before its backward pass; every rank must call it.

        Raises:
            NonFiniteUpdateError: if a rank's loss is not finite.
        """
        if self._bad([loss.detach()])[0]:
            self._losses.append(loss.detach())
            self._refuse()

    def check_parameters(self, where: str) -> None:
        """Refuse to save parameters that are not finite, such as those that a huge learning rate made.

        Args:
            where: the folder that they are saved to, for the message.

        Raises:
            NonFiniteUpdateError: if this rank holds such a parameter.
        """
        values = [_local(parameter.detach()) for parameter in self._trainer.model.parameters()]
        values = [value for value in values if value.is_floating_point() and value.numel()]
        flags = [value.isfinite().all().float() for value in values]
        sharded = self._trainer.accelerator.distributed_type == DistributedType.FSDP
        finite = torch.stack([flag.to(flags[0].device) for flag in flags]).min() if flags else torch.ones(())
        if sharded:
            finite = self._trainer.accelerator.gather(finite.to(self._trainer.accelerator.device)).min()
        if bool(finite):
            return
        raise NonFiniteUpdateError(
            f"After update {self._trainer.state.global_step} some parameters are not finite, so {where} was not "
            f"written. {self._last_checkpoint()} Lower learning_rate."
        )

    def _check_step(self, optimizer: Any) -> None:
        """Check the update that the optimizer is about to make, with one wait for the device."""
        for group in optimizer.param_groups:
            for name, value in group.items():
                if isinstance(value, float) and not math.isfinite(value):
                    raise NonFiniteUpdateError(
                        f"At update {self._update} the optimizer's {name} is {value}; the update was not made. "
                        f"{self._last_checkpoint()} See to the learning rate's schedule and the optimizer's options."
                    )
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        # again, since callbacks can change gradients after their norm was taken
        gradients = [_local(parameter.grad) for parameter in parameters if parameter.grad is not None]
        norms = [torch.nn.utils.get_total_norm(gradients)] if gradients else []
        if self._norm is not None:
            norms.append(torch.as_tensor(self._norm))
        loss_bad, gradients_bad = self._bad(self._losses, norms)
        if loss_bad or gradients_bad:
            self._refuse(gradients_bad)
        self._forget()

    def _check_norm(self) -> None:
        """Check the losses and the gradient norm; scaled losses may make it overflow now and then."""
        loss_bad, gradients_bad = self._bad(self._losses, [torch.as_tensor(self._norm)])
        self._overflows = self._overflows + 1 if gradients_bad else 0
        allowed = MOST_OVERFLOWS if self._scaler is not None else 0
        if loss_bad or self._overflows > allowed:
            self._refuse(gradients_bad)
        self._forget()

    @property
    def _scaler(self) -> Any:
        return getattr(self._trainer.accelerator, "scaler", None)

    @property
    def _update(self) -> int:
        return self._trainer.state.global_step + 1

    def _bad(self, *groups: list[torch.Tensor]) -> list[bool]:
        """Whether a number of each group is not finite on any rank. Every rank must call it."""
        device = self._trainer.accelerator.device
        flags = []
        for scalars in groups:
            parts = [_local(scalar.detach()).to(device).float().reshape(()) for scalar in scalars]
            flags.append((~torch.stack(parts).isfinite()).any() if parts else torch.zeros((), dtype=torch.bool))
        counts = torch.stack([flag.to(device) for flag in flags]).float()
        if self._trainer.accelerator.num_processes > 1:
            counts = self._trainer.accelerator.reduce(counts, reduction="sum")
        return [count > 0 for count in counts.tolist()]

    def account(self) -> str:
        """Save this rank's batch, and say in words that the update was not made and where a run goes on from."""
        accelerator = self._trainer.accelerator
        rank, ranks = accelerator.process_index, accelerator.num_processes
        saved = save_batches(self._trainer, self._batches, {"update": self._update, "rank": rank})
        on_rank = f" (rank {rank} of {ranks})" if ranks > 1 else ""
        return f"The update was not made{on_rank}, and nothing is saved after it; {saved}. {self._last_checkpoint()}"

    # A refusal ---------------------------------------------------------------------------------------------------

    def _refuse(self, gradients_bad: bool = False, *, made: bool = False) -> None:
        """Say what was the first that is not finite, save the batches, and stop; every rank must call it.

        Args:
            gradients_bad: whether the gradient norm is not finite.
            made: whether the update was made already.
        """
        accelerator = self._trainer.accelerator
        rank, ranks = accelerator.process_index, accelerator.num_processes
        losses = [_Seen(LOSS, LOSS, loss.reshape(1)) for loss in self._losses]
        reports = [report for seen in (*self._rewards, *self._seen, *losses) if (report := seen.report()) is not None]
        if gradients_bad:
            reports.append((QUANTITIES.index(GRADIENT), "gradient norm is not finite", None))
        mine = [(index, said, rank if of is None else of) for index, said, of in reports]
        every = [report for of_rank in gather_object([mine]) for report in of_rank]
        index, said, first_rank = min(every, key=lambda report: (report[0], report[2]))
        others = [name for place, name in enumerate(QUANTITIES) if place in {report[0] for report in every} - {index}]
        saved = save_batches(
            self._trainer,
            self._batches,
            {"update": self._update, "rank": rank, "first": said, "first_rank": first_rank, "also": others},
        )
        accelerator.wait_for_everyone()  # a launcher ends the others when one has ended
        model = type(accelerator.unwrap_model(self._trainer.model)).__name__
        said = said.replace(f"{LOGPS} are", f"{LOGPS} of {model} are")
        where = f" on rank {first_rank} of {ranks}" if ranks > 1 else ""
        also = f", and so {'are' if len(others) > 1 else 'is'} the {', '.join(others)}" if others else ""
        outcome = "The update was made already" if made else "The update was not made"
        raise NonFiniteUpdateError(
            f"At update {self._update} the {said}{where}{also}. {outcome}, and nothing is saved after it; {saved}. "
            f"{self._last_checkpoint()} {REMEDIES[QUANTITIES[index]]}"
        )

    def _last_checkpoint(self) -> str:
        folder = last_whole(Path(str(self._trainer.args.output_dir)))
        if folder is None:
            return "There is no checkpoint yet."
        return f"The last good checkpoint is {folder}; --resume_from_checkpoint true goes on from it."

    def _forget(self) -> None:
        self._seen, self._batches, self._losses, self._norm = [], [], [], None


def _local(value: torch.Tensor) -> torch.Tensor:
    """This rank's part of a tensor that FSDP shards."""
    return value.to_local() if hasattr(value, "to_local") else value
