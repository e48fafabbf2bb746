"""Divergence of the policy's whole next-token distributions from a reference's, online and without `(B, T, V)` logits.

Only the hidden states of the completion tokens are kept of the reference, for as long as a generation is trained on.
The policy's hidden states are those of the training forward pass. `token_statistics` computes the rest from both LM
heads.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import DistributedType
from transformers import AutoTokenizer
from trl.models import prepare_deepspeed, prepare_fsdp
from trl.trainer.utils import create_model_from_path, get_config_model_id, use_adapter

from tokenshift.analysis.divergence.hidden_states import captured_hidden_states, completion_states, forward_options
from tokenshift.analysis.divergence.lm_head import LMHead, gathered_head
from tokenshift.analysis.divergence.token_statistics import token_statistics
from tokenshift.analysis.divergence.vocabulary import shared_vocabulary
from tokenshift.analysis.sampling.trajectories import TrajectoryBatch
from tokenshift.analysis.token_table.scoring import predicting_states

logger = get_logger(__name__)

REFERENCE_HIDDEN = "reference_hidden"
"""Key under which a generation's tensors carry the reference's hidden states `(B, C, H)`."""


def load_base(trainer: Any, path: str | None = None) -> Any:
    """The model before RL, prepared as TRL prepares its reference model; None where disabling an adapter gives it.

    Args:
        trainer: any trainer of TRL's.
        path: a folder or a hub name of another model than the one the policy began as.

    Raises:
        ValueError: if no path is given and the policy's config names no model.
    """
    model, args = trainer.model, trainer.args
    if path is None:
        if hasattr(model, "peft_config"):
            return None
        reference = getattr(trainer, "ref_model", None)
        if reference is not None and not getattr(args, "sync_ref_model", False):
            return reference
        if not get_config_model_id(model.config):
            raise ValueError(
                "The policy's config names no model to load the base from; give base_model, or build the trainer from "
                "a folder or a hub name."
            )
    kwargs = dict(getattr(args, "model_init_kwargs", None) or {}) if path is None else {}
    if args.distributed_state.distributed_type in (DistributedType.MULTI_GPU, DistributedType.DEEPSPEED):
        kwargs["device_map"] = None
    kwargs |= {"dtype": model.dtype, "attn_implementation": model.config._attn_implementation}
    kwargs.setdefault("trust_remote_code", getattr(args, "trust_remote_code", False))
    base = create_model_from_path(path or get_config_model_id(model.config), **kwargs)
    if trainer.is_deepspeed_enabled:
        return prepare_deepspeed(base, trainer.accelerator)
    if trainer.is_fsdp_enabled:
        return prepare_fsdp(base, trainer.accelerator)
    return trainer.accelerator.prepare_model(base, evaluation_mode=True)


class DistributionReference:
    """The model that the policy's distributions are compared with: the base, or the policy that made the rollouts.

    Args:
        trainer: a [`~trl.GRPOTrainer`], its models loaded and prepared.
        kind: `"base"` or `"old"`.
        path: a folder or a hub name of the base, where it is not the model that the policy began as.

    Raises:
        ValueError: if a base has another tokenizer than the policy.
    """

    def __init__(self, trainer: Any, kind: str, path: str | None = None) -> None:
        self.trainer, self.kind = trainer, kind
        self.shared: int | None = None  # tokens that both heads have, where one is longer
        self._old_head: LMHead | None = None
        tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
        base_tokenizer = tokenizer if path is None else AutoTokenizer.from_pretrained(path)
        if path is not None:  # before a model is loaded
            shared_vocabulary(base_tokenizer, tokenizer)
        self.base = load_base(trainer, path) if kind == "base" else None
        if self.base is not None:
            sizes = [model.config.get_text_config().vocab_size for model in (self._unwrapped(self.base), self._policy)]
            if sizes[0] != sizes[1]:
                self.shared, note = shared_vocabulary(base_tokenizer, tokenizer, *sizes)
                logger.warning(note)

    @property
    def base_config(self) -> Any:
        """The configuration of the base model, or the policy's where the base is the policy without its adapter."""
        return (self._policy if self.base is None else self._unwrapped(self.base)).config

    @property
    def _policy(self) -> Any:
        return self._unwrapped(self.trainer.model)

    # Once a generation -------------------------------------------------------------------------------------------

    def hidden_states(self, generation: dict[str, Any]) -> torch.Tensor:
        """The reference's states `(B, C, H)` for a generation's completions, in the model's dtype; no gradients.

        It takes forward passes of the backbone in the trainer's batch size; every rank must call it.

        Raises:
            ValueError: if the generation has images.
        """
        if "num_images" in generation:
            raise ValueError("divergence between whole distributions is for text; use k1, k2 or k3 with images.")
        ids = torch.cat([generation["prompt_ids"], generation["completion_ids"]], dim=1)  # (B, P + C)
        mask = torch.cat([generation["prompt_mask"], generation["completion_mask"]], dim=1)
        length, size = generation["completion_ids"].shape[1], self.trainer.args.per_device_train_batch_size
        options = forward_options(self._policy)
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
                model(input_ids=ids[rows], attention_mask=mask[rows], **options)
                states.append(completion_states([captured.pop()], length))
        if self.kind == "old":
            with gathered_head(self._policy) as head:  # training moves the head too
                bias = None if head.bias is None else head.bias.clone()
                self._old_head = LMHead(head.weight.clone(), bias, head.scale, head.softcap)
        return torch.cat(states).to(self.trainer.model.dtype)

    @contextmanager
    def _reference_model(self) -> Iterator[Any]:
        """The wrapped model that computes the reference's forward pass, in eval mode."""
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
        """The adapter of the base: TRL's copy where an adapter is trained further, else None, no adapter."""
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
        """`token_statistics` `(N,)` of the valid tokens, with the reference as base and the policy as RL.

        Args:
            reference_hidden, policy_hidden: hidden states `(B, C, H)`.
            completion_ids: token ids `(B, C)`, int64.
            mask: `(B, C)` bool, True at valid tokens.
            outputs: names of `token_statistics`.
            top_p: the nucleus of its truncated outputs.
        """
        return self._between(
            reference_hidden[mask], policy_hidden[mask], completion_ids[mask], outputs, self.trainer.temperature, top_p
        )

    def trajectory_statistics(
        self, batch: TrajectoryBatch, outputs: Sequence[str], temperature: float, top_p: float
    ) -> dict[str, torch.Tensor]:
        """`token_statistics` `(N,)` of a batch's completion tokens, from one forward pass of each model.

        The policy must be in eval mode. Every rank must call it, with equally many trajectories.
        """
        with self.trainer.accelerator.autocast():
            with self._reference_model() as model:
                reference = predicting_states(model, self._unwrapped(model), batch)
            policy = predicting_states(self.trainer.model_wrapped, self._policy, batch)
        return self._between(reference, policy, batch.token_ids, outputs, temperature, top_p)

    def _between(
        self,
        reference_hidden: torch.Tensor,
        policy_hidden: torch.Tensor,
        token_ids: torch.Tensor,
        outputs: Sequence[str],
        temperature: float,
        top_p: float,
    ) -> dict[str, torch.Tensor]:
        with gathered_head(self._policy) as policy_head, self._reference_head() as reference_head:
            if self.shared is not None:
                policy_head, reference_head = policy_head.prefix(self.shared), reference_head.prefix(self.shared)
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
