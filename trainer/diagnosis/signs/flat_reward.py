"""A reward that does not rise."""

import math
from statistics import fmean

from tokenshift.trainer.diagnosis.registry import Found, register_sign
from tokenshift.trainer.diagnosis.run_record import RunRecord
from tokenshift.trainer.diagnosis.series import Series

SMALLEST_RISE = 0.25
"""A rise is missing where even its 95 % upper bound is below this many standard deviations of the completions'
rewards. For rewards of 0 and 1 near an accuracy of one half that is 12 points over the run. The embedded example's
reward rises from 0.5 to 0.9, and a run that is too short to tell has a wider bound and is not told of."""

ONE_SIDED = 1.645
"""Standard errors of a one-sided 95 % bound."""

FEWEST = 10
"""Logs with a reward that a trend needs: below, the normal bound is too narrow for its few degrees of freedom."""

AT_THE_TOP = 0.95
"""Position between the lowest and the highest value of the first reward from which on there is no room to rise."""


@register_sign(
    "The reward does not rise",
    "The policy does not get better at what is rewarded, or only by less than the batches differ by chance.",
)
def flat_reward(run: RunRecord) -> Found | None:
    """Seen where a straight line through the rewards rises by less than `SMALLEST_RISE`, at its 95 % upper bound."""
    rewards = run.series("reward").finite()
    spread = run.series("reward_std").finite()
    if len(rewards) < FEWEST or not len(spread) or spread.mean == 0:
        return None
    rise, error = trend(rewards)
    if rise + ONE_SIDED * error >= SMALLEST_RISE * spread.mean:
        return None
    early, late = rewards.first(1 / 4).mean, rewards.last(1 / 4).mean
    return Found(
        f"reward: {early:.3g} in the first quarter of {len(rewards)} logs, {late:.3g} in the last; "
        f"a line through all changes by {rise:+.2g} ± {1.96 * error:.2g} (95 %).",
        rewards.steps,
        _way(run),
    )


def trend(series: Series) -> tuple[float, float]:
    """The rise of the least-squares line over three logs or more, from the first to the last; its standard error."""
    places = [place / (len(series) - 1) for place in range(len(series))]
    middle, mean = fmean(places), series.mean
    width = sum((place - middle) ** 2 for place in places)
    pairs = list(zip(places, series.values, strict=True))
    rise = sum((place - middle) * (value - mean) for place, value in pairs) / width
    left = sum((value - mean - rise * (place - middle)) ** 2 for place, value in pairs)
    return rise, math.sqrt(left / (len(series) - 2) / width)


def _way(run: RunRecord) -> str:
    for name in run.names(r"rewards/.+/highest")[:1]:
        lowest, highest = run.series(name.replace("/highest", "/lowest")), run.series(name)
        means = run.series(name.replace("/highest", "/mean")).finite()
        low, high = min(lowest.values, default=0.0), max(highest.values, default=0.0)
        if high > low and len(means) and (means.last(1 / 4).mean - low) / (high - low) >= AT_THE_TOP:
            return "There is no room to rise: take harder problems (dataset_name)."
    return (
        "Raise learning_rate or train longer (max_steps); with rare rewards take easier problems or more completions "
        "per problem (num_generations); look at a few completions and their rewards (log_completions)."
    )
