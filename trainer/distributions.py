"""Divergence of the policy's whole next-token distributions from a reference's, online and without `(B, T, V)` logits.

Of the reference only the hidden states of the completion tokens are kept, for as long as a generation is trained on;
of the policy those of the training forward are used. `token_statistics` makes the rest from both LM heads.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate.utils import DistributedType
from trl.models import prepare_deepspeed, prepare_fsdp
from trl.trainer.utils import create_model_from_path, get_config_model_id, use_adapter

from tokenshift.analysis.hidden_states import captured_hidden_states, completion_states
from tokenshift.analysis.lm_head import LMHead, gathered_head
from tokenshift.analysis.statistics import token_statistics

REFERENCE_HIDDEN = "reference_hidden"
"""Key under which a generation's tensors carry the reference's hidden states `(B, C, H)`."""


def load_base(trainer: Any) -> Any:
    """The model before RL, prepared as TRL prepares its reference model; None where disabling an adapter gives it."""
    model = trainer.model
    if hasattr(model, "peft_config"):
        return None
    if trainer.ref_model is not None and not trainer.args.sync_ref_model:
        return trainer.ref_model
    kwargs = dict(trainer.args.model_init_kwargs or {})
    if trainer.args.distributed_state.distributed_type in (DistributedType.MULTI_GPU, DistributedType.DEEPSPEED):
        kwargs["device_map"] = None
    kwargs |= {"dtype": model.dtype, "attn_implementation": model.config._attn_implementation}
    kwargs.setdefault("trust_remote_code", trainer.args.trust_remote_code)
    base = create_model_from_path(get_config_model_id(model.config), **kwargs)
    if trainer.is_deepspeed_enabled:
        return prepare_deepspeed(base, trainer.accelerator)
    if trainer.is_fsdp_enabled:
        return prepare_fsdp(base, trainer.accelerator)
    return trainer.accelerator.prepare_model(base, evaluation_mode=True)


class DistributionReference:
    """What the policy's distributions are compared with: the base, or the policy as it produced the rollouts.

    Args:
        trainer: a [`~trl.GRPOTrainer`], its models loaded and prepared.
        kind: `"base"` or `"old"`.
    """

    def __init__(self, trainer: Any, kind: str) -> None:
        self.trainer, self.kind = trainer, kind
        self.base = load_base(trainer) if kind == "base" else None
        self._old_head: LMHead | None = None

    @property
    def _policy(self) -> Any:
        return self._unwrapped(self.trainer.model)

    # Once a generation -------------------------------------------------------------------------------------------

    def hidden_states(self, generation: dict[str, Any]) -> torch.Tensor:
        """The reference's states `(B, C, H)` for a generation's completions, in the model's dtype; no gradients.

        One forward pass of the backbone, in the trainer's batch size; every rank must call it.

        Raises:
            ValueError: if the generation has images.
        """
        if "num_images" in generation:
            raise ValueError("divergence between whole distributions is for text; use k1, k2 or k3 with images.")
        ids = torch.cat([generation["prompt_ids"], generation["completion_ids"]], dim=1)  # (B, P + C)
        mask = torch.cat([generation["prompt_mask"], generation["completion_mask"]], dim=1)
        length, size = generation["completion_ids"].shape[1], self.trainer.args.per_device_train_batch_size
        states = []
        with (
            torch.no_grad(),
            self._reference_model() as model,
            self.trainer.accelerator.autocast(),
            captured_hidden_states(self._unwrapped(model)) as captured,
        ):
            for start in range(0, len(ids), size):
                rows = slice(start, start + size)
                # through the whole wrapped model, so that sharded parameters are gathered
                model(input_ids=ids[rows], attention_mask=mask[rows], use_cache=False, logits_to_keep=1)
                states.append(completion_states([captured.pop()], length))
        if self.kind == "old":
            with gathered_head(self._policy) as head:  # training moves the head too
                bias = None if head.bias is None else head.bias.clone()
                self._old_head = LMHead(head.weight.clone(), bias, head.scale, head.softcap)
        return torch.cat(states).to(self.trainer.model.dtype)

    @contextmanager
    def _reference_model(self) -> Iterator[Any]:
        """The model, wrapped, whose forward is the reference's, in eval mode."""
        model = self.trainer.model_wrapped if self.base is None else self.base
        was_training = model.training
        adapterless = self.kind == "base" and self.base is None
        with use_adapter(self._policy, self._adapter) if adapterless else nullcontext():
            model.eval()
            try:
                yield model
            finally:
                model.train(was_training)

    @property
    def _adapter(self) -> str | None:
        """TRL keeps a copy of an adapter that is trained further; else none is the base."""
        return "ref" if "ref" in self._policy.peft_config else None

    def _unwrapped(self, model: Any) -> Any:
        return self.trainer.accelerator.unwrap_model(model)

    # Every update ------------------------------------------------------------------------------------------------

    def statistics(
        self,
        reference_hidden: torch.Tensor,
        policy_hidden: torch.Tensor,
        completion_ids: torch.Tensor,
        mask: torch.Tensor,
        outputs: list[str],
        top_p: float,
    ) -> dict[str, torch.Tensor]:
        """`token_statistics` of the valid tokens, base for the reference and RL for the policy, `(N,)` each.

        Args:
            reference_hidden, policy_hidden: `(B, C, H)`.
            completion_ids, mask: `(B, C)`; mask is bool.
            outputs: names of `token_statistics`.
            top_p: of its truncated outputs.
        """
        with gathered_head(self._policy) as policy_head, self._reference_head() as reference_head:
            return token_statistics(
                reference_hidden[mask],
                policy_hidden[mask],
                reference_head,
                policy_head,
                completion_ids[mask],
                outputs=outputs,
                temperature=self.trainer.temperature,
                top_p=top_p,
            )

    @contextmanager
    def _reference_head(self) -> Iterator[LMHead]:
        if self.kind == "old":
            assert self._old_head is not None
            yield self._old_head
        elif self.base is not None:
            with gathered_head(self._unwrapped(self.base)) as head:
                yield head
        else:
            with use_adapter(self._policy, self._adapter), gathered_head(self._policy) as head:
                yield head
