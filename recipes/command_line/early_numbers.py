"""Numbers on a command line that are out of range, or no numbers, found before torch and TRL are imported.

The dataclasses check them again: where this module is skipped, the same numbers are refused later.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenshift.recipes.command_line.source_fields import SourceField
from tokenshift.trainer.guard import config_numbers


@dataclass(frozen=True)
class Range:
    """The numbers that an argument takes.

    Attributes:
        words: what a message says of them, behind `must`.
        low, high: the ends.
        has_low, has_high: whether the ends belong to it.
        besides: one more number that belongs to it.
    """

    words: str
    low: float = -math.inf
    high: float = math.inf
    has_low: bool = True
    has_high: bool = True
    besides: float | None = None

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or math.isnan(value):
            return False
        if value == self.besides:
            return True
        above = value >= self.low if self.has_low else value > self.low
        below = value <= self.high if self.has_high else value < self.high
        return above and below


FINITE = Range("be a finite number", has_low=False, has_high=False)
NOT_NEGATIVE = Range("be a finite number of at least 0", low=0, has_high=False)
POSITIVE = Range("be a finite number above 0", low=0, has_low=False, has_high=False)
SCALE = Range("be >= 0; divergence_alpha carries the sign", low=0, has_high=False)
SHARE = Range("lie in (0, 1]", low=0, high=1, has_low=False)
WITHIN = Range("lie in (0, 1)", low=0, high=1, has_low=False, has_high=False)
SEED = Range("be a whole number of at least 0, and below 2**32", low=0, high=2**32, has_high=False)
LONG_SEED = Range("be a whole number of at least 0, and below 2**63", low=0, high=2**63, has_high=False)

RANGES: dict[str, Range] = {
    **dict.fromkeys(("divergence_alpha", "correct_threshold"), FINITE),
    **dict.fromkeys(("learning_rate", "beta", "gammas", "reference_cache_gib"), NOT_NEGATIVE),
    **dict.fromkeys(("divergence_scale", "low_prob_coef"), SCALE),
    "max_grad_norm": Range("be a number of at least 0", low=0),
    **dict.fromkeys(("temperature", "temperatures", "effect"), POSITIVE),
    **dict.fromkeys(("top_p", "divergence_top_p", "probe_top_p", "target_accuracy"), SHARE),
    **dict.fromkeys(("top_ps", "budgets"), WITHIN),
    "mixed_epsilon": Range("lie in [0, ln 2]", low=0, high=math.log(2)),
    "verify_timeout": POSITIVE,
    "max_steps": Range("be at least 1, or -1 for as many as num_train_epochs gives", low=-1),
    "most": Range("be a whole number of at least 1", low=1),
    "lora_r": Range("be a whole number of at least 1", low=1),
    **dict.fromkeys(("lora_alpha", "verify_budget", "sharpening"), POSITIVE),
    "lora_dropout": Range("lie in [0, 1)", low=0, high=1, has_high=False),
}
"""Numbers of an argument, the same in every command -> its range; arguments that are not here have the range of their
training config (`trainer/guard/config_numbers.py`), or may not be NaN."""

OF_CONFIGS = ("ddp_timeout", "vllm_gpu_memory_utilization")
"""Arguments of other commands that have the range of a training config's."""

SEEDS = ("seed", "seeds")
"""Seeds; those of trainings have 32 bits."""


def check_numbers(values: Mapping[str, Any], fields: Mapping[str, SourceField]) -> None:
    """Raise for the first number that is out of its range.

    Args:
        values: the given values by argument.
        fields: the command's fields by name; one of an argument says whether it is a number.

    Raises:
        ValueError: if there is one.
    """
    trains = "learning_rate" in fields
    for name, given in values.items():
        field = fields.get(name)
        if field is None or field.kind not in (int, float):
            continue
        allowed = RANGES.get(name)
        if name in SEEDS:
            allowed = SEED if trains else LONG_SEED
        elif allowed is None and (trains or name in OF_CONFIGS):
            allowed = _of_config(name)
        several = isinstance(given, list)
        for item in given if several else [given]:
            value = _number(item)
            if value is None:
                continue
            if (math.isnan(value) and allowed is None) or (not math.isfinite(value) and allowed is SCALE):
                allowed = FINITE
            if allowed is not None and value not in allowed:
                said = f"{name} has {_shown(value)}, which" if several else f"{name}={_shown(value)}"
                raise ValueError(f"{said} must {allowed.words}.")


def _of_config(name: str) -> Range | None:
    """The range that the training config checks again after the imports, by which NaN and infinity are refused too."""
    known = config_numbers.RANGES.get(name)
    if known is None:
        return None
    low, high = (-math.inf if known.low is None else known.low), (math.inf if known.high is None else known.high)
    words = f"be {'' if known.high is not None else 'finite and '}{known}"
    return Range(words, low, high, not known.above, known.high is not None and not known.below, known.besides)


def _number(value: Any) -> float | int | None:
    """A config's or a command line's value as a number; None where it is none, which others refuse."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return _in_range(value)
    try:
        return float(str(value))
    except ValueError:
        return None


def _in_range(value: float | int) -> float | int:
    """The number; infinity for a whole number that no float can hold."""
    try:
        float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    return value


def _shown(value: float) -> str:
    return repr(value)
