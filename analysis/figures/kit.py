"""What the figures of a summary share: numbers with intervals, axes of JS, legends, titles, and tokens as text."""

import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from tokenshift.analysis.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE
from tokenshift.analysis.thresholds import HIGH, NEAR_ZERO

Numbers = Mapping[str, Any]
"""Part of a summary: a kind's groups, a group, or a mean with its interval."""

SINGLE, WIDE = (4.5, 3.2), (7.0, 3.4)
"""Inches."""

JS = "JS(base, RL), nats"
TEXT = 7.5
"""Points, of ticks and legends."""


@dataclass(frozen=True)
class Look:
    """Marker and line tell apart what grey print does not."""

    color: str
    marker: str
    line: str = "-"


LOOKS = {"all": Look(BLUE, "o"), "correct": Look(GREEN, "s", "-."), "incorrect": Look(ORANGE, "^", ":")}
CONTROL = Look(PURPLE, "D", "--")
BASE, RL = Look(GREY, "s", "--"), Look(BLUE, "o")
EVERYWHERE, CHANGED = Look(GREY, "s", "--"), Look(ORANGE, "o")


@dataclass(frozen=True)
class Series:
    """Numbers side by side with their intervals, NaN for none; `n` counts the terms of each."""

    labels: list[str]
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray

    def __mul__(self, factor: float) -> "Series":
        return Series(self.labels, self.value * factor, self.low * factor, self.high * factor, self.n)

    def __getitem__(self, places: slice | np.ndarray) -> "Series":
        labels = [self.labels[place] for place in np.arange(len(self.labels))[places]]
        return Series(labels, self.value[places], self.low[places], self.high[places], self.n[places])

    @property
    def top(self) -> float:
        """The largest value or end of an interval; 0 if there is none."""
        ends = np.concatenate([self.value, self.high])
        return float(ends[np.isfinite(ends)].max(initial=0.0))


def as_series(entry: Numbers) -> Series:
    """A mean of the summary as arrays."""
    size = len(entry["labels"])
    # a null in the place of a whole list counts as a null for each
    ends = {name: np.array(entry.get(name) or [None] * size, dtype=float) for name in ("value", "low", "high")}
    return Series(list(entry["labels"]), **ends, n=np.array(entry.get("n") or [0] * size))


def mean_of(group: Numbers, name: str) -> Series:
    """A group's mean by name.

    Raises:
        ValueError: if the summary lacks it.
    """
    if name not in group["means"]:
        raise ValueError(f"The summary has no mean {name!r}; it has {', '.join(group['means'])}.")
    return as_series(group["means"][name])


def has(group: Numbers, *names: str) -> bool:
    """Whether the group has these means, each with a number in it."""
    means = group["means"]
    return all(name in means and any(value is not None for value in means[name]["value"]) for name in names)


def of_rows(rows: Sequence[Numbers], *path: str) -> Series:
    """The `{value, low, high}` that lies at a path of keys in each row; NaN where there is none."""
    found: dict[str, list[float | None]] = {"value": [], "low": [], "high": []}
    for row in rows:
        entry: Any = row
        for key in path:
            entry = (entry or {}).get(key)
        for name, values in found.items():
            values.append((entry or {}).get(name))
    arrays = {name: np.array(values, dtype=float) for name, values in found.items()}
    return Series([str(row["label"]) for row in rows], **arrays, n=np.zeros(len(rows), dtype=int))


def present(groups: Numbers) -> dict[str, Numbers]:
    """Those of all, correct and incorrect responses that there are."""
    return {name: groups[name] for name in LOOKS if name in groups}


def dodges(count: int, step: float) -> np.ndarray:
    """Shifts that keep `count` markers at one place apart."""
    return (np.arange(count) - (count - 1) / 2) * step


def draw(
    axes: Axes, places: np.ndarray, series: Series, look: Look, label: str | None = None, joined: bool = True
) -> None:
    """Markers at `places` along x, joined by lines, with a whisker from low to high wherever both are known."""
    axes.plot(
        places,
        series.value,
        color=look.color,
        marker=look.marker,
        markersize=3.5,
        linewidth=1,
        linestyle=look.line if joined else "none",
        label=label,
    )
    known = np.isfinite(series.low) & np.isfinite(series.high)
    axes.vlines(places[known], series.low[known], series.high[known], color=look.color, linewidth=1)


def draw_rows(axes: Axes, places: np.ndarray, series: Series, look: Look) -> None:
    """Markers at heights `places`, with a whisker from low to high wherever both are known."""
    axes.plot(series.value, places, color=look.color, marker=look.marker, markersize=3.5, linestyle="none")
    known = np.isfinite(series.low) & np.isfinite(series.high)
    axes.hlines(places[known], series.low[known], series.high[known], color=look.color, linewidth=1)


def js_axis(axes: Axes, which: Literal["x", "y"], floor: float, top: float = 1.0, every: int = 1) -> None:
    """Log scale of JS down to `floor`, linear below it so that 0 has a place, up to the decade above `top`."""
    first, last = round(np.log10(floor)), int(np.ceil(np.log10(max(top, 10 * floor)) - 1e-9))
    ticks = [0.0, *(10.0**power for power in range(last, first - 1, -every))]
    names = ["0", *map(number, ticks[1:])]
    if which == "x":
        axes.set_xscale("symlog", linthresh=floor)
        axes.set_xlim(-0.15 * floor, 10.0**last)
        axes.set_xticks(ticks, names)
    else:
        axes.set_yscale("symlog", linthresh=floor)
        axes.set_ylim(-0.15 * floor, 10.0**last)
        axes.set_yticks(ticks, names)
    axes.minorticks_off()


def js_floor(found: Sequence[Series], smallest: float) -> float:
    """The decade of the smallest number above 0, but at least `smallest` and at most 0.01: where an axis may begin."""
    ends = np.concatenate([array for series in found for array in (series.value, series.low)])
    lowest = ends[ends > 0].min(initial=0.01)
    return float(10 ** np.floor(np.log10(np.clip(lowest, smallest * 1.001, 0.01))))


def percent_axis(axes: Axes, top: float) -> None:
    """Per cent on y, linear below 0.1 % and a log scale above, up to the decade above `top`."""
    axes.set_yscale("symlog", linthresh=0.1)
    last = float(next(tick for tick in (1, 10, 100) if top <= tick or tick == 100))
    axes.set_ylim(-0.01, last * 1.05)
    axes.set_yticks([tick for tick in (0, 0.1, 1, 10, 100) if tick <= last])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def mark_thresholds(axes: Axes, which: Literal["x", "y"], names: bool = True) -> None:
    """Lines at near zero and high, named in the margin, where no data is."""
    lower, upper = sorted(axes.get_xlim() if which == "x" else axes.get_ylim())
    for value, name in ((NEAR_ZERO, "near zero"), (HIGH, "high")):
        if not lower <= value <= upper:
            continue
        line: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "linestyle": (0, (4, 3)), "zorder": 1}
        text: dict[str, Any] = {"fontsize": 6.5, "color": GREY}
        if which == "x":
            axes.axvline(value, **line)
            if names:
                axes.text(value, 1.01, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", **text)
        else:
            axes.axhline(value, **line)
            if names:
                axes.text(1.01, value, name, transform=axes.get_yaxis_transform(), va="center", **text)


def note(axes: Axes, text: str) -> None:
    """Say in a panel's middle why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=TEXT)


def tidy(figure: Figure) -> None:
    """Small ticks, fixed now since matplotlib makes some of them only when it draws, outside of `style()`."""
    for axes in figure.axes:
        axes.tick_params(labelsize=TEXT)
        axes.xaxis.label.set_fontsize(8.5)
        axes.yaxis.label.set_fontsize(8.5)


def legend(figure: Figure, axes: Axes) -> None:
    """A panel's legend below the figure, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    width = 0.55 * TEXT * (max(map(len, labels)) + 8)  # points of a column
    columns = int(np.clip(72 * figure.get_figwidth() // width, 1, len(labels)))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=TEXT, columnspacing=1.2
    )


def heading(figure: Figure, title: str, count: str) -> None:
    """The figure's title, and below it what it counts."""
    width = int(72 * figure.get_figwidth() / (0.55 * 9))
    lines = [part for line in (*title.splitlines(), count) for part in textwrap.wrap(line, width)]
    figure.suptitle(plain("\n".join(lines)), fontsize=9)


def _escaped(letter: str, glyphs: Collection[int]) -> str:
    """The letter, or an escape where it is invisible or the font has no glyph."""
    if letter.isprintable() and ord(letter) in glyphs:
        return letter
    return letter.encode("unicode_escape").decode()


def _glyphs() -> Collection[int]:
    return get_font(findfont(FontProperties())).get_charmap()


def plain(text: str) -> str:
    """The text with dollars that start no formula, and escapes where the font has no glyph."""
    glyphs = _glyphs()
    lines = ("".join(_escaped(letter, glyphs) for letter in line) for line in text.split("\n"))
    return "\n".join(lines).replace("$", r"\$")


def counted(group: Numbers) -> str:
    """The group's n."""
    return f"n = {group['tokens']:,} tokens, {group['responses']:,} responses, {group['problems']:,} problems"


def compact(count: int) -> str:
    """A count in at most seven characters."""
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= max(unit, 10**5):
            return f"{count / unit:.4g}{name}"
    return f"{count:,}"


def shown(token: str, longest: int = 12) -> str:
    """A token in quotes on one line, as `repr` writes it: shortened, and escaped where the font has no glyph."""
    glyphs = _glyphs()
    text = ""
    for place, letter in enumerate(token):
        piece = rf"\{letter}" if letter in "\\'" else _escaped(letter, glyphs)
        if len(text) + len(piece) > longest and place:
            return plain(f"'{text}'…")
        text += piece
    return plain(f"'{text}'")


def number(value: float) -> str:
    """A threshold or a tick, without a row of zeros."""
    return f"{value:g}" if value >= 1e-3 else f"{value:.0e}".replace("e-0", "e-")


def short(label: str, longest: int = 28) -> str:
    """A row's name on one line."""
    line = " ".join(label.split())
    return plain(line if len(line) <= longest else f"{line[: longest - 1]}…")
