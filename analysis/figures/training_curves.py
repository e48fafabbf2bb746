"""Figure of a training run: reward, divergence and weights, or what is added to advantages, over updates."""

from collections.abc import Callable, Sequence
from functools import partial
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


def _values_panel(axes: Axes, log: Log, *, metric: str, title: str, label: str) -> None:
    steps, low = _series(log, f"{metric}/min")
    _, high = _series(log, f"{metric}/max")
    axes.fill_between(steps, low, high, color=BLUE, alpha=0.2, linewidth=0, label="smallest to largest")
    axes.plot(*_series(log, f"{metric}/mean"), color=BLUE, label="mean")
    axes.set_title(title)
    axes.set_ylabel(label)
    axes.legend(frameon=False)


def _active_panel(axes: Axes, log: Log, *, metric: str, title: str, label: str) -> None:
    steps, shares = _series(log, f"{metric}/frac_active")
    axes.plot(steps, [100 * share for share in shares], color=ORANGE)
    axes.set_ylim(bottom=0)
    axes.set_title(title)
    axes.set_ylabel(label)


WEIGHTS, BONUSES = "advantage_weight", "advantage_bonus"
"""Prefixes of the metrics of weights that multiply the advantages, and of what is added to them."""


def training_curves(log: Log, title: str) -> Figure | None:
    """Reward, divergence and weight, or what is added to the advantages, against updates.

    Panels whose metrics were not logged are left out.

    Args:
        log: A Trainer's `log_history`.
        title: The figure's title.

    Returns:
        The figure; None if nothing was logged that can be drawn.
    """
    panels: dict[str, Callable[[Axes, Log], None]] = {
        "reward": _reward_panel,
        "divergence/mean": _divergence_panel,
        f"{WEIGHTS}/mean": partial(_values_panel, metric=WEIGHTS, title="Advantage weight", label="weight"),
        f"{WEIGHTS}/frac_active": partial(
            _active_panel, metric=WEIGHTS, title="Tokens weighted other than 1", label="% of tokens, |w - 1| > 0.01"
        ),
        f"{BONUSES}/mean": partial(_values_panel, metric=BONUSES, title="Added to the advantage", label="bonus"),
        f"{BONUSES}/frac_active": partial(
            _active_panel, metric=BONUSES, title="Tokens with a bonus other than 0", label="% of tokens, |b| > 0.01"
        ),
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
