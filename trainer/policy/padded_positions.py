"""Models that count the padding of a batch as positions, and the positions that they should count instead.

TRL pads prompts on the left and gives the forward passes of a training no `position_ids`. A model with absolute
positions that does not take them from the attention mask (GPT-2, BERT) then reads each text somewhere else than
generation did.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from tokenshift.analysis.divergence.hidden_states import (
    backbone,
    class_name,
    evaluation_mode,
    forward_arguments,
    learned_prompt,
)
from tokenshift.analysis.sampling.token_ids import positions_of
from tokenshift.trainer.precision import computing_dtype

TRIED_IDS = tuple(range(3, 15))
"""Token ids of the text that a model is tried on; every vocabulary has them."""

PADDING = 4
"""Tokens of padding that it is tried with."""

TOLERANCE, HALF_TOLERANCE = 0.01, 0.2
"""Largest difference that rounding may make, in standard deviations of a row of logits, in float32 and in 16 bits."""

Forward = Callable[..., Any]


@torch.no_grad()
def _logits(forward: Forward, model: Any, ids: list[int], mask: list[int]) -> torch.Tensor:
    device = next(iter(model.parameters())).device
    tensors = [torch.tensor([values], device=device) for values in (ids, mask)]
    with evaluation_mode(model):
        output = forward(**forward_arguments(model, *tensors))
    logits: torch.Tensor = output.logits[0].float()
    return logits


def _difference(logits: torch.Tensor, others: torch.Tensor) -> float:
    """The median over positions of the largest difference, in standard deviations of a row.

    The median, since rounding may send single tokens of a mixture of experts to another expert.
    """
    spread = others.std(dim=-1).clamp_min(torch.finfo(others.dtype).tiny)
    return float(((logits - others).abs().amax(dim=-1) / spread).median())


def counts_padding(model: Any, forward: Forward | None = None, dtype: torch.dtype = torch.float32) -> bool:
    """Whether logits change with padding on the left, which the attention mask marks. Two short forward passes.

    Args:
        model: an unwrapped causal LM, with or without an adapter.
        forward: the callable that makes the forward pass, where a wrapper gathers its parameters; the model when None.
        dtype: what the forward pass computes in: padding rounds differently, and autocast with fewer digits than the
            parameters have.
    """
    ids, mask = [*([0] * PADDING), *TRIED_IDS], [*([0] * PADDING), *([1] * len(TRIED_IDS))]
    padded = _logits(forward or model, model, ids, mask)[PADDING:]
    plain = _logits(forward or model, model, ids[PADDING:], mask[PADDING:])
    # 8-bit products round by the largest number of a whole batch
    exact = dtype == torch.float32 and not getattr(model, "is_quantized", False)
    return _difference(padded, plain) > (TOLERANCE if exact else HALF_TOLERANCE)


def give_positions(model: Any) -> Any:
    """Give each forward pass over whole texts the positions that generation counts, unless it has positions.

    Args:
        model: an unwrapped causal LM, with or without an adapter, whose backbone takes `position_ids`; of another,
            nothing changes.

    Returns:
        The handle of the hook; `remove()` undoes it.
    """
    module = backbone(model)
    takes_positions = "position_ids" in inspect.signature(module.forward).parameters

    def add_positions(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask: Any = kwargs.get("attention_mask")
        given = (*args[:1], kwargs.get("input_ids"), kwargs.get("inputs_embeds"))
        tokens = next((value for value in given if value is not None), None)
        whole = mask is not None and tokens is not None and mask.shape == tokens.shape[:2]
        if takes_positions and whole and kwargs.get("position_ids") is None:
            kwargs = kwargs | {"position_ids": positions_of(mask)}
        return args, kwargs

    return module.register_forward_pre_hook(add_positions, with_kwargs=True)


def settle_positions(trainer: Any, *others: Any) -> None:
    """See to it that a trainer's forward passes read a text where generation read it; every rank must call it.

    Args:
        trainer: a trainer of TRL's that pads prompts on the left, its models loaded and prepared.
        *others: models beside the policy that read its texts, unwrapped; None is left out.

    Raises:
        ValueError: for a model that counts padding and takes no positions, or whose state reads the padding.
    """
    policy = trainer.accelerator.unwrap_model(trainer.model)
    dtype = computing_dtype(trainer)
    if not counts_padding(policy, trainer.model, dtype):
        return
    handles = [give_positions(model) for model in (policy, *others) if model is not None]
    if counts_padding(policy, trainer.model, dtype):
        for handle in handles:
            handle.remove()
        prompt = learned_prompt(policy)
        raise ValueError(
            f"{class_name(policy)} counts the padding that TRL puts before shorter prompts, so that in training its "
            "distributions are not those that it samples from; "
            + (
                f"PEFT gives it no positions beside a learned prompt ({prompt.peft_type}), so use LoRA."
                if prompt is not None
                else "use a model that takes its positions from the attention mask or as position_ids."
            )
        )
