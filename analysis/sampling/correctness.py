"""Which responses count as correct: those whose reward is at least a threshold."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from tokenshift.analysis.thresholds import CORRECT

ROUNDING = 1e-6
"""Relative distance below the threshold at which a reward still counts as equal to it: 0.7 in float32 is below 0.7."""


def is_correct(reward: float | None, threshold: float = CORRECT) -> bool | None:
    """Whether a response with this reward counts as correct: the reward is at least the threshold, up to rounding.

    Args:
        reward: The reward; None or NaN where nothing judged.
        threshold: The lowest reward of a correct response.

    Returns:
        None where there is no reward.
    """
    if reward is None or math.isnan(reward):
        return None
    return reward >= lowest_correct(threshold)


def lowest_correct(threshold: float) -> float:
    """The lowest number that counts as a reward of `threshold`, which rounding may have made smaller."""
    return threshold - ROUNDING * abs(threshold)


def check_correct_threshold(threshold: float) -> None:
    """Refuse a threshold that is no number.

    Raises:
        ValueError: If it is NaN or infinite.
    """
    if not math.isfinite(threshold):
        raise ValueError(f"correct_threshold={threshold} must be a finite number, the lowest reward of a correct one.")


def given_rewards(rewards: Iterable[float | None]) -> list[float]:
    """The rewards that are there, without None and NaN."""
    return [reward for reward in rewards if reward is not None and not math.isnan(reward)]


def are_graded(rewards: Iterable[float | None]) -> bool:
    """Whether some reward is neither 0 nor 1: then the mean reward is not the share of correct responses."""
    return any(reward not in (0, 1) for reward in given_rewards(rewards))


def none_correct_remark(rewards: Iterable[float | None], threshold: float = CORRECT) -> str | None:
    """The remark that graded rewards never reach the threshold, with their range; None where it does not apply."""
    values = given_rewards(rewards)
    if not are_graded(values) or any(is_correct(value, threshold) for value in values):
        return None
    low, high = min(values), max(values)
    seen = f"every reward is {low:.4g}" if low == high else f"the rewards lie between {low:.4g} and {high:.4g}"
    return (
        f"No response counts as correct: {seen}, and a correct response has a reward of at least {threshold:g}. Read "
        "the mean reward, or set --correct_threshold."
    )


def correctness_words(metadata: Mapping[str, Any]) -> str | None:
    """The rule by which responses count as correct, such as `accuracy_reward >= 1`.

    Args:
        metadata: `reward`, the name of the reward, and `correct_threshold`; files that were made before have none.

    Returns:
        None where the metadata names no reward.
    """
    if metadata.get("reward") is None:
        return None
    return f"{metadata['reward']} >= {metadata.get('correct_threshold', CORRECT):g}"
