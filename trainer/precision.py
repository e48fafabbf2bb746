"""The precision that a training computes in, and a warning where its weights have too few digits for the updates."""

from typing import Any

import torch
from accelerate.logging import get_logger
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tokenshift.analysis.divergence.projection import multiplies_in_tf32

logger = get_logger(__name__)

HALVES = (torch.bfloat16, torch.float16)

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Name of a mixed precision in accelerate -> the dtype that autocast multiplies in."""


def computing_dtype(trainer: Any) -> torch.dtype:
    """float32, float16 or bfloat16, whichever rounds about as a trainer's forward passes do; TF32 is as float16.

    Args:
        trainer: any trainer of transformers', its model loaded.
    """
    dtype = AUTOCAST.get(trainer.accelerator.mixed_precision, trainer.model.dtype)
    if dtype == torch.float32 and trainer.accelerator.device.type == "cuda" and multiplies_in_tf32():
        return torch.float16
    known = {torch.float64: torch.float32, torch.float32: torch.float32, torch.float16: torch.float16}
    return known.get(dtype, torch.bfloat16)


def moved_share(parameters: list[torch.Tensor], learning_rate: float) -> float:
    """The share of weights that an update of the size of the learning rate changes, which is what AdamW's is at most.

    A weight changes if the update is at least half the distance to the next number of its type.
    """
    moved = 0
    for parameter in parameters:
        exponent = torch.frexp(parameter.detach().float()).exponent
        # numbers in [2^(exponent - 1), 2^exponent) lie eps * 2^(exponent - 1) apart
        half_step = torch.finfo(parameter.dtype).eps / 4 * torch.exp2(exponent.float())
        moved += int((learning_rate >= half_step).sum())
    return moved / max(1, sum(parameter.numel() for parameter in parameters))


_FOR_MODELS = (
    "Load the model in float32 (model_init_kwargs={'dtype': 'float32'}) and set bf16=True for autocast, or use "
    "DeepSpeed, which keeps float32 masters."
)
_FOR_ADAPTERS = "TRL keeps the adapters of quantized models so: set a higher learning_rate, or use DeepSpeed."


def precision_warning(parameters: list[torch.Tensor], learning_rate: float, *, quantized: bool) -> str | None:
    """One line where trained weights are bfloat16 or float16, else None.

    Args:
        parameters: the optimizer's, this rank's.
        learning_rate: the largest one of the run.
        quantized: whether they are an adapter on a quantized model, which TRL keeps in bfloat16.
    """
    short = [parameter for parameter in parameters if parameter.dtype in HALVES]
    if not short:
        return None
    name = str(short[0].dtype).removeprefix("torch.")
    return (
        f"The trained weights are {name}, without float32 masters: an AdamW update at learning rate "
        f"{learning_rate:g} changes at most {moved_share(short, learning_rate):.1%} of them, the others stay as they "
        "are. " + (_FOR_ADAPTERS if quantized else _FOR_MODELS)
    )


class PrecisionCheck(TrainerCallback):
    """Warns once, when training begins, of trained weights in half precision that nothing keeps float32 masters of.

    Args:
        trainer: any trainer of transformers'.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        optimizer = kwargs.get("optimizer")
        if self.trainer.is_deepspeed_enabled or optimizer is None:  # DeepSpeed keeps float32 masters itself
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        local = [parameter.to_local() if hasattr(parameter, "to_local") else parameter for parameter in parameters]
        quantized = getattr(self.trainer.model, "is_quantized", False)
        if warning := precision_warning(local, args.learning_rate, quantized=quantized):
            logger.warning(warning)
