"""The metrics that matter, and the names and charts under which trackers get this project's metrics."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from transformers.integrations import integration_utils

from tokenshift.analysis.thresholds import POSITION_BINS

HEADLINE: Mapping[str, str] = {
    "reward": "reward",
    "length": "completions/mean_length",
    "D p95": "divergence/p95",
    "D>0.1": "divergence/frac_high",
    "w mean": "advantage_weight/mean",
    "w max": "advantage_weight/max",
    "w active": "advantage_weight/frac_active",
    "JS": "shift/own/top_p/mean",
    "near zero": "shift/own/top_p/frac_near_zero",
    "accuracy": "shift/own/accuracy",
}
"""The ten scalars to look at first, by their short labels: the terminal's line and panel, and W&B's first section."""

ADDED: Mapping[str, str] = {
    label.replace("w ", "bonus "): name.replace("advantage_weight/", "advantage_bonus/")
    for label, name in HEADLINE.items()
    if name.startswith("advantage_weight/")
}
"""The scalars that take their place where a weighting is added to the advantage."""

NAMESPACES = (
    *("divergence", "divergence_entropy", "divergence_position", "advantage_weight", "advantage_bonus"),
    *("dynamic_sampling", "rollout", "shift", "verification"),
    *("analysis", "cross", "evaluation", "comparison", "reproduction"),  # of finished analyses
)
"""First parts of the names of this project's metrics: trackers have them as the documentation does, without the
`train/` that transformers puts before all names in some of them."""

PROBE = "shift/"
"""Prefix of the shift probe's metrics."""

POSITION = re.compile(r"(?P<chart>divergence_position|shift/(?:.*/)?position)[_/](?P<bin>\d\d)")
"""Name of the mean JS in one of the equal parts of a completion."""

_rewritten = integration_utils.rewrite_logs


def is_own(name: str) -> bool:
    """Whether a metric is one of this project's."""
    space, slash, _ = name.partition("/")
    return bool(slash) and space in NAMESPACES


def is_probe(name: str) -> bool:
    """Whether a metric is the shift probe's."""
    return name.startswith(PROBE)


def documented_names(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Logs as transformers names them for a tracker, and this project's under their own names."""
    own = {name: value for name, value in logs.items() if is_own(name)}
    others: dict[str, Any] = _rewritten({name: value for name, value in logs.items() if name not in own})
    return others | own


@contextmanager
def documented() -> Iterator[None]:
    """Let transformers' trackers name metrics by `documented_names`."""
    before = integration_utils.rewrite_logs
    integration_utils.rewrite_logs = documented_names
    try:
        yield
    finally:
        integration_utils.rewrite_logs = before


def position_charts(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Logs for W&B, in which the numbers by position are one histogram each, such as `divergence/position`.

    Its height is the mean JS (nats) in an equal part of the completion, 0 where no token is; its axis is the relative
    position from 0 to 1.
    """
    import wandb  # here: who has no W&B trains without

    parts: dict[str, dict[int, float]] = {}
    others: dict[str, Any] = {}
    for name, value in logs.items():
        matched = POSITION.fullmatch(name)
        if matched is None:
            others[name] = value
        else:
            chart = matched["chart"].replace("divergence_position", "divergence/position")
            parts.setdefault(chart, {})[int(matched["bin"])] = float(value)
    for chart, values in parts.items():
        heights = [values.get(index, 0.0) for index in range(POSITION_BINS)]
        edges = np.linspace(0, 1, POSITION_BINS + 1)
        others[chart] = wandb.Histogram(np_histogram=(np.array(heights), edges))
    return others
