"""Divergence of the policy's whole next-token distributions from a reference's, online and without `(B, T, V)` logits.

Only the hidden states of the valid completion tokens are kept of the reference, in host memory, for as long as a
generation is trained on; where they exceed a budget, the base's are computed anew for every micro-batch. The policy's
hidden states are those of the training forward pass. `token_statistics` computes the rest from both LM heads.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate.logging import get_logger

from tokenshift.analysis.divergence.hidden_states import head_inputs
from tokenshift.analysis.divergence.lm_head import LMHead, gathered_head
from tokenshift.analysis.divergence.own_logits import fitted_head
from tokenshift.analysis.divergence.token_statistics import token_statistics
from tokenshift.analysis.sampling.trajectories import TrajectoryBatch
from tokenshift.analysis.token_table.model_states import depends_on_padding
from tokenshift.trainer.base_model import load_base as load_base
from tokenshift.trainer.precision import AUTOCAST
from tokenshift.trainer.reference_cache import GIB, host_rows, on_device
from tokenshift.trainer.reference_model import ReferenceModel

logger = get_logger(__name__)

REFERENCE_HIDDEN = "reference_hidden"
"""Key under which a generation carries the reference's states, one `(n, H)` per completion of n valid tokens.

It is missing where they are computed anew for every micro-batch. Checkpoints of earlier versions have `(B, C, H)`.
"""

LARGEST_DIFFERENCE, LARGEST_DIFFERENCE_HALF = 1e-2, 0.3
"""Nats by which TRL's log-probabilities may differ from those of the same states on average, by rounding alone."""


def valid_tokens(inputs: dict[str, Any]) -> torch.Tensor:
    """The completions' valid tokens `(B, C)`, bool: not padding, not masked completions, not tool results.

    Args:
        inputs: TRL's tensors of a generation or a micro-batch.
    """
    mask = inputs["completion_mask"]
    return (mask * inputs["tool_mask"] if "tool_mask" in inputs else mask).bool()


class DistributionReference(ReferenceModel):
    """Divergences of the policy's next-token distributions from those of a [`ReferenceModel`].

    Args:
        trainer: a [`~trl.GRPOTrainer`], its models loaded and prepared.
        kind: `"base"` or `"old"`.
        path: a folder or a hub name of the base, where it is not the model that the policy began as.

    Raises:
        ValueError: as of [`ReferenceModel`].
    """

    def __init__(self, trainer: Any, kind: str, path: str | None = None) -> None:
        super().__init__(trainer, kind, path)
        self._told_of_budget = False
        self._padding_checked = False  # whether padding is known to leave the policy's states alone

    # Once a generation -------------------------------------------------------------------------------------------

    def hidden_states(self, generation: dict[str, Any], budget: float = math.inf) -> list[torch.Tensor] | None:
        """The reference's states for a generation's valid completion tokens, one `(n, H)` per completion.

        They have no gradients and lie in host memory, in the dtype that they are multiplied in. It takes forward
        passes in the trainer's batch size; every rank must call it.

        Args:
            generation: TRL's tensors by name.
            budget: GiB of host memory that the states may take on a rank. The base's are not kept beyond it; the
                rollout policy's are, since it is gone after the first update.

        Returns:
            The states; None where some rank's take more than the budget.

        Raises:
            ValueError: if the generation has images, or if the reference's own logits are not what its head makes of
                its states.
        """
        if "num_images" in generation:
            raise ValueError("divergence between whole distributions is for text; use k1, k2 or k3 with images.")
        valid = valid_tokens(generation)  # (B, C)
        lengths: list[int] = valid.sum(dim=1).tolist()
        size, accelerator = self.trainer.args.per_device_train_batch_size, self.trainer.accelerator
        rows: list[torch.Tensor] = []
        self._old_head = None  # the last generation's
        # through the whole wrapped model, so that sharded parameters are gathered
        with self._reference_model() as model, accelerator.autocast():
            for start in range(0, len(valid), size):
                batch = slice(start, start + size)
                states = self._completion_states(model, generation, batch, valid[batch])
                if not start:
                    if self._exceeds(budget, sum(lengths), states):
                        return None
                    rows = host_rows(lengths, states.shape[1], states.dtype, pinned=self._pinned)
                for row, part in zip(rows[batch], states.split(lengths[batch]), strict=True):
                    row.copy_(part)
        return rows

    def micro_batch_states(self, inputs: dict[str, Any]) -> list[torch.Tensor]:
        """The base's states for a micro-batch, as `hidden_states` gives them, but on the device; no gradients.

        Every rank must call it, before the policy's forward pass, so that only one of the two takes memory.
        """
        assert self.kind == "base"
        valid = valid_tokens(inputs)
        with self._reference_model() as model, self.trainer.accelerator.autocast():
            states = self._completion_states(model, inputs, slice(None), valid)
        return list(states.split(valid.sum(dim=1).tolist()))

    def _completion_states(
        self, model: Any, generation: dict[str, Any], batch: slice, valid: torch.Tensor
    ) -> torch.Tensor:
        """The states `(N, H)` from which the valid tokens of a batch of completions were predicted, on the device.

        Args:
            model: the reference, wrapped.
            generation: TRL's tensors by name.
            batch: the completions to compute.
            valid: their valid tokens `(b, C)`, bool.
        """
        ids, mask = (
            torch.cat([generation[f"prompt_{kind}"][batch], generation[f"completion_{kind}"][batch]], dim=1)
            for kind in ("ids", "mask")
        )  # (b, P + C)
        unwrapped = self._unwrapped(model)
        inputs = head_inputs(model, unwrapped, ids, mask).last(valid.shape[1] + 1)
        with gathered_head(unwrapped) as head:
            if self._reference_form is not None:
                head = replace(head, scale=self._reference_form[0], softcap=self._reference_form[1])
            states, head = fitted_head(unwrapped, head, inputs)
            self._reference_form = head.scale, head.softcap
            if self.kind == "old" and self._old_head is None:
                self._old_head = self._kept(head, AUTOCAST.get(self.trainer.accelerator.mixed_precision))
        states = states[:, :-1][valid].to(self.trainer.model.dtype)
        return states.to(AUTOCAST.get(self.trainer.accelerator.mixed_precision, states.dtype))

    def _exceeds(self, budget: float, tokens: int, states: torch.Tensor) -> bool:
        """Whether the states of this many tokens are not to be kept; every rank must call it, and all agree.

        Args:
            budget: GiB a rank.
            tokens: valid tokens of this rank's generation.
            states: some of the states `(n, H)`.
        """
        accelerator = self.trainer.accelerator
        size = torch.tensor([tokens * states.shape[1] * states.dtype.itemsize], device=accelerator.device)
        largest = int(accelerator.gather(size).max()) / GIB
        if largest <= budget:
            return False
        if self.kind == "base":
            return True
        if not self._told_of_budget:
            self._told_of_budget = True
            logger.warning(
                f"The rollout policy's hidden states of a generation take {largest:.3g} GiB of host memory on a rank, "
                f"more than reference_cache_gib={budget:g}: they cannot be computed anew after the first update. "
                "divergence_reference='base' keeps to it, as does a smaller generation_batch_size."
            )
        return False

    # Every update ------------------------------------------------------------------------------------------------

    def statistics(
        self,
        reference_hidden: torch.Tensor | Sequence[torch.Tensor],
        policy_hidden: torch.Tensor,
        completion_ids: torch.Tensor,
        mask: torch.Tensor,
        outputs: Sequence[str],
        top_p: float,
        logps: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """`token_statistics` `(N,)` of the valid tokens, with the reference as base and the policy as RL.

        Args:
            reference_hidden: the states of `hidden_states` or `micro_batch_states`, or of all tokens `(B, C, H)`.
            policy_hidden: hidden states `(B, C, H)`.
            completion_ids: token ids `(B, C)`, int64.
            mask: `(B, C)` bool, True at valid tokens.
            outputs: names of `token_statistics`.
            top_p: the nucleus of its truncated outputs.
            logps: the policy's log-probabilities `(N,)` of the valid tokens as TRL computed them, to compare with.

        Raises:
            ValueError: if these differ from the policy's states' by more than rounding.
        """
        if self._reference_form is None:  # the states come from a checkpoint
            self._fit_reference(completion_ids[:1])
        if isinstance(reference_hidden, torch.Tensor):
            reference_hidden = reference_hidden[mask]  # (N, H)
        else:
            reference_hidden = on_device(reference_hidden, policy_hidden.device)
        with self._heads() as (policy_head, reference_head):
            scale, softcap = self._reference_form or (reference_head.scale, reference_head.softcap)
            statistics = self._between(
                reference_hidden,
                policy_hidden[mask],
                replace(reference_head, scale=scale, softcap=softcap),
                policy_head,
                completion_ids[mask],
                sorted({*outputs, "logp_rl"}),
                self.trainer.temperature,
                top_p,
            )
        if logps is not None and self.shared is None:
            self._check_logps(statistics["logp_rl"], logps)
        return statistics

    def policy_statistics(
        self, first: torch.Tensor, second: torch.Tensor, token_ids: torch.Tensor, outputs: list[str], top_p: float
    ) -> dict[str, torch.Tensor]:
        """`token_statistics` `(N,)` between two forward passes of the policy, `first` as base and `second` as RL.

        Args:
            first, second: hidden states `(N, H)`.
            token_ids: `(N,)`, int64.
        """
        with gathered_head(self._policy) as head:
            first, head = self._as_computed(first, head)
            return token_statistics(
                first,
                second.to(first.dtype),
                head,
                head,
                token_ids,
                outputs=outputs,
                temperature=self.trainer.temperature,
                top_p=top_p,
            )

    def trajectory_statistics(
        self, batch: TrajectoryBatch, outputs: Sequence[str], temperature: float, top_p: float
    ) -> dict[str, torch.Tensor]:
        """`token_statistics` `(N,)` of a batch's completion tokens, from one forward pass of each model.

        The policy must be in eval mode. Every rank must call it, with equally many trajectories.

        Raises:
            ValueError: if a model's own logits are not what its head makes of its states.
        """
        with self.trainer.accelerator.autocast():
            with self._reference_model() as model:
                reference_model = self._unwrapped(model)
                reference = head_inputs(model, reference_model, batch.input_ids, batch.attention_mask, **batch.images)
            policy = head_inputs(
                self.trainer.model_wrapped, self._policy, batch.input_ids, batch.attention_mask, **batch.images
            )
        with self._heads() as (policy_head, reference_head):
            reference_hidden, reference_head = fitted_head(reference_model, reference_head, reference)
            policy_hidden, policy_head = fitted_head(self._policy, policy_head, policy)
            policy_hidden = policy_hidden[batch.predicts]
            statistics = self._between(
                reference_hidden[batch.predicts],
                policy_hidden,
                reference_head,
                policy_head,
                batch.token_ids,
                outputs,
                temperature,
                top_p,
            )
        if not self._padding_checked and len(batch.input_ids) > 1 and not batch.images:
            self._check_padding(batch, policy_hidden)
        return statistics

    def _check_padding(self, batch: TrajectoryBatch, policy_hidden: torch.Tensor) -> None:
        """Raise ValueError if padding changes the policy's states, which a forward pass of one trajectory tells."""
        with self.trainer.accelerator.autocast():
            if depends_on_padding(self.trainer.model_wrapped, self._policy, batch, policy_hidden):
                raise ValueError(
                    f"{type(self._policy).__name__} gives a trajectory other distributions when it is padded to a "
                    "batch's length; set batch_size=1 of the probe (per_device_eval_batch_size=1)."
                )
        self._padding_checked = True

    def _between(
        self,
        reference_hidden: torch.Tensor,
        policy_hidden: torch.Tensor,
        reference_head: LMHead,
        policy_head: LMHead,
        token_ids: torch.Tensor,
        outputs: Sequence[str],
        temperature: float,
        top_p: float,
    ) -> dict[str, torch.Tensor]:
        shared = min(policy_head.vocab_size, reference_head.vocab_size, self.shared or policy_head.vocab_size)
        if len(token_ids) and (largest := int(token_ids.max())) >= shared:
            raise ValueError(
                f"The policy gave token {largest}, but only the first {shared} tokens are in both its LM head and the "
                "reference's, so that their distributions cannot be compared there; give both heads the same number "
                "of rows (resize_token_embeddings and save_pretrained, before training)."
            )
        reference_hidden, reference_head = self._as_computed(reference_hidden, reference_head.prefix(shared))
        policy_hidden, policy_head = self._as_computed(policy_hidden, policy_head.prefix(shared))
        return token_statistics(
            reference_hidden,
            policy_hidden,
            reference_head,
            policy_head,
            token_ids,
            outputs=outputs,
            temperature=temperature,
            top_p=top_p,
        )

    def _as_computed(self, states: torch.Tensor, head: LMHead) -> tuple[torch.Tensor, LMHead]:
        """States and their head in the dtype that autocast multiplies them in, if the training uses it.

        The statistics are then of the policy that is trained, and an accelerator multiplies by its fast units.
        """
        dtype = AUTOCAST.get(self.trainer.accelerator.mixed_precision)
        return (states, head) if dtype is None else (states.to(dtype), head.to(dtype))

    def _check_logps(self, logps: torch.Tensor, trl_logps: torch.Tensor) -> None:
        """Raise ValueError if log-probabilities `(N,)` from the captured states are not those of TRL's loss."""
        if not len(logps):
            return
        difference = float((logps - trl_logps).abs().mean())
        exact = self.trainer.model.dtype == torch.float32 and self.trainer.accelerator.mixed_precision == "no"
        # numbers that are not finite are the update guard's to refuse, on all ranks together
        if math.isfinite(difference) and difference > (LARGEST_DIFFERENCE if exact else LARGEST_DIFFERENCE_HALF):
            raise ValueError(
                f"The log-probabilities of TRL's loss and of {type(self._policy).__name__}'s captured states differ "
                f"by {difference:.3g} on average, so that its divergences would be wrong; use divergence k1, k2 or k3."
            )
