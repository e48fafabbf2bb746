"""The model that a policy's distributions are compared with, base or rollout policy: its forward pass and LM head."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.logging import get_logger
from transformers import AutoTokenizer

from tokenshift.analysis.divergence.hidden_states import head_inputs
from tokenshift.analysis.divergence.lm_head import LMHead, gathered_head, head_of, whole_heads
from tokenshift.analysis.divergence.own_logits import fitted_head
from tokenshift.analysis.divergence.vocabulary import shared_vocabulary
from tokenshift.analysis.storage.whole_file import whole_file
from tokenshift.trainer.base_adapter import BaseAdapter
from tokenshift.trainer.base_model import check_added_tokens, load_base
from tokenshift.trainer.reference_cache import host_copy

logger = get_logger(__name__)


class ReferenceModel:
    """The base of a policy, or the policy as it made the rollouts.

    The base of an adapter is the policy with the adapter disabled. Of the rollout policy there is a forward pass only
    before the first update on its rollouts; after that it is its LM head that is kept, in host memory.

    Args:
        trainer: a [`~trl.GRPOTrainer`], its models loaded and prepared.
        kind: `"base"` or `"old"`.
        path: a folder or a hub name of the base, where it is not the model that the policy began as.

    Attributes:
        base: the base, prepared; None where it is the policy without its adapter, or the rollout policy is compared.
        adapter: turns a PEFT policy back into the base; None where there is no need.
        shared: the number of tokens that both LM heads have, where one is longer; else None.

    Raises:
        ValueError: if a base has another tokenizer than the policy, or tokens were added to the policy in memory, or
            the base of an adapter that is trained further cannot be kept ([`BaseAdapter`]).
    """

    def __init__(self, trainer: Any, kind: str, path: str | None = None) -> None:
        self.trainer, self.kind = trainer, kind
        self.shared: int | None = None  # tokens that both heads have, where one is longer
        self._old_head: LMHead | None = None  # in host memory
        self._base_head: LMHead | None = None  # of an adapter that trains the head too, in host memory
        self._reference_form: tuple[float, float | None] | None = None  # scale and cap that fit its states
        tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
        trust = getattr(trainer.args, "trust_remote_code", False)
        base_tokenizer = tokenizer if path is None else AutoTokenizer.from_pretrained(path, trust_remote_code=trust)
        if path is not None:  # before a model is loaded
            shared_vocabulary(base_tokenizer, tokenizer)
        if kind == "base" and path is None:
            check_added_tokens(trainer, tokenizer)
        self.base = load_base(trainer, path) if kind == "base" else None
        self.adapter = BaseAdapter(trainer) if kind == "base" and self.base is None else None
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

    def _unwrapped(self, model: Any) -> Any:
        return self.trainer.accelerator.unwrap_model(model)

    # The forward pass -------------------------------------------------------------------------------------------

    @contextmanager
    def _reference_model(self) -> Iterator[Any]:
        """The wrapped model that computes the reference's forward pass, in eval mode."""
        model = self.trainer.model_wrapped if self.base is None else self.base
        was_training = model.training
        with nullcontext() if self.adapter is None else self.adapter.restored():
            self._keep_base_head()
            model.eval()
            try:
                yield model
            finally:
                model.train(was_training)

    def _keep_base_head(self) -> None:
        """Copy the head of the base, which the policy computes as now, if its adapter trains the head."""
        if self.adapter is None or self._base_head is not None:
            return
        module = self._policy.get_output_embeddings()
        if module is not None and self.adapter.trains([module.weight, getattr(module, "bias", None)]):
            with gathered_head(self._policy) as head:
                self._base_head = self._kept(head)

    def _fit_reference(self, ids: torch.Tensor) -> None:
        """Find the form of the reference's head from a forward pass of a few tokens `(1, n)`."""
        with self._reference_model() as model, self.trainer.accelerator.autocast():
            unwrapped = self._unwrapped(model)
            inputs = head_inputs(model, unwrapped, ids, torch.ones_like(ids))
            with gathered_head(unwrapped) as head:
                head = fitted_head(unwrapped, head, inputs)[1]
        self._reference_form = head.scale, head.softcap

    # The LM heads ------------------------------------------------------------------------------------------------

    @contextmanager
    def _heads(self) -> Iterator[tuple[LMHead, LMHead]]:
        """The policy's and the reference's heads, whole; a parameter that both have is gathered once."""
        policy = head_of(self._policy)
        if self.kind == "old":
            assert self._old_head is not None
            with whole_heads(policy) as (policy,):
                yield policy, self._old_head.on(policy.weight.device)
        elif self.base is not None:
            with whole_heads(policy, head_of(self._unwrapped(self.base))) as (policy, reference):
                yield policy, reference
        else:  # an adapter may leave the head to the base model, or train it too
            with whole_heads(policy) as (policy,):
                yield policy, policy if self._base_head is None else self._base_head.on(policy.weight.device)

    @property
    def _pinned(self) -> bool:
        """Whether host memory is pinned."""
        return bool(self.trainer.accelerator.device.type == "cuda")

    def _kept(self, head: LMHead, dtype: torch.dtype | None = None) -> LMHead:
        """A copy of a head in host memory, which training does not move; in another dtype if one is given."""
        bias = None if head.bias is None else host_copy(head.bias, dtype, pinned=self._pinned)
        return replace(head, weight=host_copy(head.weight, dtype, pinned=self._pinned), bias=bias)

    def save_head(self, file: Path) -> None:
        """Write the rollout policy's LM head, which its states are projected by, to a file."""
        assert self._old_head is not None
        with whole_file(file) as partial:
            torch.save(dict(vars(self._old_head)), partial)

    def load_head(self, file: Path) -> None:
        """Take the rollout policy's LM head from a file of `save_head`."""
        self._old_head = LMHead(**torch.load(file, map_location="cpu", weights_only=True))
        self._reference_form = self._old_head.scale, self._old_head.softcap
