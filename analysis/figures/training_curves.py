"""Figure of a training run: reward, divergence and weights over updates."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tokenshift.analysis.figures.style import BLUE, GREEN, ORANGE, style

Log = Sequence[dict[str, Any]]
"""Entries of a `log_history`: `step`, and metrics by name."""


def _series(log: Log, key: str) -> tuple[list[int], list[float]]:
    points = [(entry["step"], entry[key]) for entry in log if entry.get(key) is not None]
    return [step for step, _ in points], [value for _, value in points]


def _smooth(values: list[float], width: int) -> list[float]:
    """Trailing mean over `width` logs."""
    return [sum(part) / len(part) for i in range(len(values)) if (part := values[max(0, i + 1 - width) : i + 1])]


def _reward_panel(axes: Axes, log: Log) -> None:
    steps, rewards = _series(log, "reward")
    axes.plot(steps, rewards, color=BLUE, alpha=0.3, linewidth=1)
    axes.plot(steps, _smooth(rewards, 5), color=BLUE, label="mean of 5 logs")
    axes.set_title("Reward (mean of a generation)")
    axes.set_ylabel("reward")
    axes.legend(frameon=False)


def _divergence_panel(axes: Axes, log: Log) -> None:
    for label, color in (("mean", GREEN), ("p95", BLUE), ("p99", ORANGE)):
        steps, values = _series(log, f"divergence/{label}")
        axes.plot(steps, values, color=color, label=label)
    axes.set_yscale("symlog", linthresh=1e-5)
    axes.set_ylim(bottom=0)
    axes.set_title("Divergence from the reference")
    axes.set_ylabel("nats per token")
    axes.legend(frameon=False)


def _weight_panel(axes: Axes, log: Log) -> None:
    steps, low = _series(log, "advantage_weight/min")
    _, high = _series(log, "advantage_weight/max")
    axes.fill_between(steps, low, high, color=BLUE, alpha=0.2, linewidth=0, label="smallest to largest")
    axes.plot(*_series(log, "advantage_weight/mean"), color=BLUE, label="mean")
    axes.set_title("Advantage weight")
    axes.set_ylabel("weight")
    axes.legend(frameon=False)


def _active_panel(axes: Axes, log: Log) -> None:
    steps, shares = _series(log, "advantage_weight/frac_active")
    axes.plot(steps, [100 * share for share in shares], color=ORANGE)
    axes.set_ylim(bottom=0)
    axes.set_title("Tokens weighted other than 1")
    axes.set_ylabel("% of tokens, |w - 1| > 0.01")


def training_curves(log: Log, title: str) -> Figure | None:
    """Reward, divergence and weight against updates; panels whose metrics were not logged are left out.

    Args:
        log: A Trainer's `log_history`.
        title: The figure's title.

    Returns:
        The figure; None if nothing was logged that can be drawn.
    """
    panels = {
        "reward": _reward_panel,
        "divergence/mean": _divergence_panel,
        "advantage_weight/mean": _weight_panel,
        "advantage_weight/frac_active": _active_panel,
    }
    present = [panel for key, panel in panels.items() if _series(log, key)[0]]
    if not present:
        return None
    with style():
        figure = Figure(figsize=(3.5 * len(present), 3), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(present), squeeze=False)[0], present, strict=True):
            panel(axes, log)
            axes.set_xlabel("update")
            axes.tick_params(labelsize=9)  # also of ticks that matplotlib makes only when it draws, outside of style()
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.suptitle(title)
    return figure
