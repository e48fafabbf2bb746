"""Whether a model's next-token distribution is a function of the tokens before it, as all divergences here take it.

Two things break that without an error: a model that also reads later tokens (a masked language model, a permutation or
prefix language model), and a model that counts the padding of a batch as positions.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from tokenshift.analysis.divergence.hidden_states import _without_adapter as unadapted
from tokenshift.analysis.divergence.hidden_states import evaluation_mode

TRIED_IDS = tuple(range(3, 15))
"""Token ids of the text that a model is tried on; every vocabulary has them."""

PADDING = 4
"""Tokens of padding that it is tried with."""

TOLERANCE = {torch.float32: 0.01, torch.float64: 0.01}
HALF_TOLERANCE = 0.2
"""Largest difference that rounding may make, in standard deviations of a row of logits."""

Forward = Callable[..., Any]


@torch.no_grad()
def _logits(
    forward: Forward, model: Any, ids: list[int], mask: list[int], positions: list[int] | None
) -> torch.Tensor:
    accepted = inspect.signature(unadapted(model).forward).parameters
    device = next(iter(model.parameters())).device
    options: dict[str, Any] = {"use_cache": False} if "use_cache" in accepted else {}
    with evaluation_mode(model):
        output = forward(
            input_ids=torch.tensor([ids], device=device), attention_mask=torch.tensor([mask], device=device), **options
        )
    logits: torch.Tensor = output.logits[0].float()
    return logits


def _difference(logits: torch.Tensor, others: torch.Tensor) -> float:
    """The median over positions of the largest difference, in standard deviations of a row.

    The median, since rounding may send single tokens of a mixture of experts to another expert.
    """
    spread = others.std(dim=-1).clamp_min(torch.finfo(others.dtype).tiny)
    return float(((logits - others).abs().amax(dim=-1) / spread).median())


def _limit(model: Any) -> float:
    return TOLERANCE.get(next(iter(model.parameters())).dtype, HALF_TOLERANCE)


def check_causal(model: Any, forward: Forward | None = None) -> None:
    """Refuse a model whose logits at a position depend on later tokens. It takes two short forward passes.

    Args:
        model: an unwrapped causal LM, with or without an adapter.
        forward: the callable that makes the forward pass, where a wrapper gathers its parameters; the model when None.

    Raises:
        ValueError: for such a model.
    """
    ids = list(TRIED_IDS)
    short = len(ids) * 2 // 3
    whole, prefix = (_logits(forward or model, model, part, [1] * len(part)) for part in (ids, ids[:short]))
    if _difference(whole[:short], prefix) > _limit(model):
        raise ValueError(
            f"{type(unadapted(model)).__name__} reads the tokens after a position too, so that its logits are no "
            "next-token distributions; use a causal language model (a BERT-like one needs is_decoder=True in its "
            "config)."
        )


def counts_padding(model: Any, forward: Forward | None = None) -> bool:
    """Whether logits change with padding on the left, which the attention mask marks. Two short forward passes.

    Args:
        model: an unwrapped causal LM, with or without an adapter.
        forward: as in `check_causal`.
    """
    ids, mask = [*([0] * PADDING), *TRIED_IDS], [*([0] * PADDING), *([1] * len(TRIED_IDS))]
    padded = _logits(forward or model, model, ids, mask)[PADDING:]
    plain = _logits(forward or model, model, ids[PADDING:], mask[PADDING:])
    return _difference(padded, plain) > _limit(model)


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    """The position `(B, T)` of each token among those that an attention mask `(B, T)` leaves; 0 at padding."""
    return (mask.long().cumsum(dim=-1) - 1).clamp_min(0)


def give_positions(model: Any) -> Any:
    """Give every forward pass with an attention mask of its own shape the positions that generation counts.

    Returns:
        The handle of the hook; `remove()` undoes it.
    """

    takes_positions = "position_ids" in inspect.signature(unadapted(model).forward).parameters

    def add_positions(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask, ids = kwargs.get("attention_mask"), kwargs.get("input_ids")
        whole = mask is not None and ids is not None and mask.shape == ids.shape
        if takes_positions and whole and kwargs.get("position_ids") is None:
            kwargs = kwargs | {"position_ids": positions_of(mask)}
        return args, kwargs

    return unadapted(model).register_forward_pre_hook(add_positions, with_kwargs=True)
