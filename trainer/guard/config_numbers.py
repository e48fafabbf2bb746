"""The numbers of a training config: finite, and in the range where they mean something."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from numbers import Real
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin


@dataclass(frozen=True)
class Range:
    """The numbers that a setting may have.

    Attributes:
        low, high: the bounds; None where there is none.
        above: whether `low` itself is excluded.
        below: whether `high` itself is excluded.
        besides: one more number that is allowed, such as -1 for "not set".
    """

    low: float | None = None
    high: float | None = None
    above: bool = False
    below: bool = False
    besides: float | None = None

    def __contains__(self, value: float) -> bool:
        if value == self.besides:
            return True
        low_enough = self.high is None or (value < self.high if self.below else value <= self.high)
        high_enough = self.low is None or (value > self.low if self.above else value >= self.low)
        return low_enough and high_enough

    def __str__(self) -> str:
        parts = []
        if self.low is not None:
            parts.append("positive" if self.above and self.low == 0 else f"at least {self.low:g}")
        if self.high is not None:
            parts.append(f"{'below' if self.below else 'at most'} {self.high:.10g}")
        return " and ".join(parts) + (f", or {self.besides:g}" if self.besides is not None else "")


NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, above=True)
COUNT = Range(1)
SHARE = Range(0, 1)
POSITIVE_SHARE = Range(0, 1, above=True)
DECAY = Range(0, 1, below=True)
SEED = Range(0, 2**32 - 1)

LARGEST = 1e30
"""Numbers beyond it would overflow in float32."""

LARGEST_WHOLE = 10**19
"""Whole numbers of a config are smaller: seeds of 64 bits are."""

RANGES: Mapping[str, Range] = {
    "adam_beta1": DECAY,
    "adam_beta2": DECAY,
    "adam_epsilon": NOT_NEGATIVE,
    "beta": NOT_NEGATIVE,
    "data_seed": SEED,
    "dataloader_num_workers": NOT_NEGATIVE,
    "dataloader_prefetch_factor": COUNT,
    "dataset_num_proc": COUNT,
    "ddp_bucket_cap_mb": COUNT,
    "ddp_timeout": POSITIVE,
    "delta": POSITIVE,
    "entropy_coef": NOT_NEGATIVE,
    "entropy_coef_delta": NOT_NEGATIVE,
    "entropy_coef_max": NOT_NEGATIVE,
    "entropy_coef_min": NOT_NEGATIVE,
    "entropy_target": NOT_NEGATIVE,
    "epsilon": NOT_NEGATIVE,
    "epsilon_high": NOT_NEGATIVE,
    "eval_accumulation_steps": COUNT,
    "eval_delay": NOT_NEGATIVE,
    "eval_steps": NOT_NEGATIVE,
    "generation_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "label_smoothing_factor": SHARE,
    "learning_rate": NOT_NEGATIVE,
    "logging_steps": NOT_NEGATIVE,
    "max_completion_length": COUNT,
    "max_grad_norm": NOT_NEGATIVE,
    "max_length": COUNT,
    "max_steps": Range(1, besides=-1),
    "max_tool_calling_iterations": COUNT,
    "min_p": SHARE,
    "neftune_noise_alpha": NOT_NEGATIVE,
    "num_completions_to_print": NOT_NEGATIVE,
    "num_generations": COUNT,
    "num_generations_eval": COUNT,
    "num_iterations": COUNT,
    "num_train_epochs": POSITIVE,
    "off_policy_mask_threshold": NOT_NEGATIVE,
    "pad_to_multiple_of": COUNT,
    "per_device_eval_batch_size": COUNT,
    "per_device_train_batch_size": COUNT,
    "ref_model_mixup_alpha": SHARE,
    "ref_model_sync_steps": COUNT,
    "repetition_penalty": POSITIVE,
    "router_aux_loss_coef": NOT_NEGATIVE,
    "sapo_temperature_neg": POSITIVE,
    "sapo_temperature_pos": POSITIVE,
    "save_steps": NOT_NEGATIVE,
    "save_total_limit": NOT_NEGATIVE,
    "seed": SEED,
    "steps_per_generation": COUNT,
    "temperature": POSITIVE,
    "top_entropy_quantile": SHARE,
    "top_k": Range(0, besides=-1),
    "top_p": POSITIVE_SHARE,
    "torch_empty_cache_steps": COUNT,
    "vespo_k_neg": NOT_NEGATIVE,
    "vespo_k_pos": NOT_NEGATIVE,
    "vespo_lambda_neg": NOT_NEGATIVE,
    "vespo_lambda_pos": NOT_NEGATIVE,
    "vllm_gpu_memory_utilization": POSITIVE_SHARE,
    "vllm_group_port": Range(0, 65535),
    "vllm_importance_sampling_cap": NOT_NEGATIVE,
    "vllm_importance_sampling_clip_max": NOT_NEGATIVE,
    "vllm_importance_sampling_clip_min": NOT_NEGATIVE,
    "vllm_max_model_length": COUNT,
    "vllm_server_port": Range(0, 65535),
    "vllm_server_timeout": NOT_NEGATIVE,
    "vllm_tensor_parallel_size": COUNT,
    "warmup_steps": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
}
"""The range of each setting of transformers and TRL that has one."""


def check_config_numbers(config: Any) -> None:
    """Refuse numbers that are not finite, wherever they stand in a config, those outside a setting's range, and other
    values where a setting takes numbers alone.

    Args:
        config: a training config, such as a [`~trl.GRPOConfig`] or a [`~trl.SFTConfig`]; a dataclass.

    Raises:
        ValueError: in one line, naming the setting, its value and what it may be.
    """
    for field in fields(config):
        value = getattr(config, field.name, None)
        for where, number in _numbers(field.name, value):
            if isinstance(number, int) and abs(number) >= LARGEST_WHOLE:
                raise ValueError(f"{where} must be a whole number of less than {len(str(LARGEST_WHOLE))} digits.")
            if not math.isfinite(number):
                raise ValueError(f"{where}={number!r} must be a finite number.")
            if not isinstance(number, int) and abs(number) > LARGEST:
                raise ValueError(f"{where}={number!r} is beyond {LARGEST:g}, where float32 overflows.")
        _check_type(field.name, value, field.type)
        allowed = RANGES.get(field.name)
        if allowed is None or isinstance(value, bool) or not isinstance(value, Real):
            continue
        if value not in allowed:  # type: ignore[operator]
            raise ValueError(f"{field.name}={value!r} must be {allowed}.")


def _check_type(name: str, value: Any, declared: Any) -> None:
    """Refuse a value that is no number where a setting is declared as one, and a fraction where it counts."""
    members = get_args(declared) if get_origin(declared) in (Union, UnionType) else (declared,)
    types = set(members) - {NoneType}
    if value is None or not types or not types <= {int, float}:
        return
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{name}={value!r} must be a {'number' if float in types else 'whole number'}.")
    if float not in types and value % 1 != 0:
        raise ValueError(f"{name}={value!r} must be a whole number.")


def _numbers(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The numbers in a setting, with the name of the place where each one stands."""
    if isinstance(value, bool):
        return
    if isinstance(value, Real):  # numpy's too
        yield where, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _numbers(f"{where}[{key!r}]", part)
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _numbers(f"{where}[{index}]", part)
