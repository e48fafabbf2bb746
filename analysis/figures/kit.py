"""Parts that all figures share: numbers with intervals, axes of JS, legends, titles, tokens as text, and the files."""

import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from tokenshift.analysis.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE
from tokenshift.analysis.storage.whole_file import whole_file
from tokenshift.analysis.thresholds import HIGH, NEAR_ZERO

Numbers = Mapping[str, Any]
"""Part of a summary: a kind's groups, a group, or a mean with its interval."""

SINGLE, WIDE = (4.5, 3.2), (7.0, 3.4)
"""Width and height of figures of one and of two panels, inches."""

TEXT = 7.5
"""Size of ticks and legends, points."""


@dataclass(frozen=True)
class Look:
    """Colour, marker and line of a series; marker and line tell series apart in grey print too."""

    color: str
    marker: str
    line: str = "-"


LOOKS = {"all": Look(BLUE, "o"), "correct": Look(GREEN, "s", "-."), "incorrect": Look(ORANGE, "^", ":")}
CONTROL = Look(PURPLE, "D", "--")
BASE, RL = Look(GREY, "s", "--"), Look(BLUE, "o")
EVERYWHERE, CHANGED = Look(GREY, "s", "--"), Look(ORANGE, "o")


@dataclass(frozen=True)
class Series:
    """K numbers side by side with their intervals.

    Attributes:
        labels: K names.
        value, low, high: `(K,)` float64, NaN where there is none.
        n: `(K,)` terms of each mean.
    """

    labels: list[str]
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray

    def __mul__(self, factor: float) -> "Series":
        return Series(self.labels, self.value * factor, self.low * factor, self.high * factor, self.n)

    def __getitem__(self, chosen: slice | np.ndarray) -> "Series":
        labels = [self.labels[index] for index in np.arange(len(self.labels))[chosen]]
        return Series(labels, self.value[chosen], self.low[chosen], self.high[chosen], self.n[chosen])

    @property
    def top(self) -> float:
        """The largest value or end of an interval; 0 if there is none."""
        ends = np.concatenate([self.value, self.high])
        return float(ends[np.isfinite(ends)].max(initial=0.0))


def as_series(entry: Numbers) -> Series:
    """A mean of the summary, with `labels`, `value`, `low`, `high` and `n`, as arrays."""
    size = len(entry["labels"])
    # a null instead of a whole list counts as a null for every label
    ends = {name: np.array(entry.get(name) or [None] * size, dtype=float) for name in ("value", "low", "high")}
    return Series(list(entry["labels"]), **ends, n=np.array(entry.get("n") or [0] * size))


def mean_of(group: Numbers, name: str) -> Series:
    """A group's mean by name.

    Raises:
        ValueError: If the summary lacks the mean.
    """
    if name not in group["means"]:
        raise ValueError(f"The summary has no mean {name!r}; it has {', '.join(group['means'])}.")
    return as_series(group["means"][name])


def has(group: Numbers, *names: str) -> bool:
    """Whether the group has all these means, each with at least one number."""
    means = group["means"]
    return all(name in means and any(value is not None for value in means[name]["value"]) for name in names)


def of_rows(rows: Sequence[Numbers], *path: str) -> Series:
    """The `{value, low, high}` at a path of keys in each row as one series; NaN where a row has none."""
    columns: dict[str, list[float | None]] = {"value": [], "low": [], "high": []}
    for row in rows:
        entry: Any = row
        for key in path:
            entry = (entry or {}).get(key)
        for name, values in columns.items():
            values.append((entry or {}).get(name))
    arrays = {name: np.array(values, dtype=float) for name, values in columns.items()}
    return Series([str(row["label"]) for row in rows], **arrays, n=np.zeros(len(rows), dtype=int))


def present(groups: Numbers) -> dict[str, Numbers]:
    """The groups of all, correct and incorrect responses that the summary has."""
    return {name: groups[name] for name in LOOKS if name in groups}


def save_figure(figure: Figure, path: Path, formats: Sequence[str] = ("png", "svg")) -> Path:
    """Write a figure in each format; the files differ in their suffix alone.

    Args:
        figure: What to write.
        path: The files' path without a suffix.
        formats: The suffixes.

    Returns:
        The file of the first format.
    """
    for name in formats:
        undated = {"metadata": {"Date": None}} if name == "svg" else {}  # the same figure is the same file
        salt = matplotlib.rc_context({"svg.hashsalt": "tokenshift"})
        with whole_file(path.with_suffix(f".{name}")) as partial, salt:
            figure.savefig(partial, dpi=160, format=name, **undated)  # type: ignore[arg-type]
        figure.set_layout_engine("none")  # it is laid out now, which takes as long as drawing
    return path.with_suffix(f".{formats[0]}")


def dodges(count: int, step: float) -> np.ndarray:
    """Offsets `(count,)` that keep `count` markers at one position apart, `step` from one to the next."""
    return (np.arange(count) - (count - 1) / 2) * step


def draw_series(
    axes: Axes, positions: np.ndarray, series: Series, look: Look, label: str | None = None, joined: bool = True
) -> None:
    """Draw markers at `positions` along x, joined by lines, with whiskers from low to high wherever both are known."""
    axes.plot(
        positions,
        series.value,
        color=look.color,
        marker=look.marker,
        markersize=3.5,
        linewidth=1,
        linestyle=look.line if joined else "none",
        label=label,
    )
    known = np.isfinite(series.low) & np.isfinite(series.high)
    axes.vlines(positions[known], series.low[known], series.high[known], color=look.color, linewidth=1)


def draw_rows(axes: Axes, positions: np.ndarray, series: Series, look: Look) -> None:
    """Draw markers at heights `positions`, with a whisker from low to high wherever both are known."""
    axes.plot(series.value, positions, color=look.color, marker=look.marker, markersize=3.5, linestyle="none")
    known = np.isfinite(series.low) & np.isfinite(series.high)
    axes.hlines(positions[known], series.low[known], series.high[known], color=look.color, linewidth=1)


def js_axis(axes: Axes, which: Literal["x", "y"], floor: float, top: float = 1.0, every: int = 1) -> None:
    """Set a log scale of JS down to `floor`, linear below so that 0 is on the axis, up to the decade above `top`."""
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


def js_floor(drawn: Sequence[Series], smallest: float) -> float:
    """The lowest end of an axis: the decade of the smallest number above 0, at least `smallest` and at most 0.01."""
    ends = np.concatenate([array for series in drawn for array in (series.value, series.low)])
    lowest = ends[ends > 0].min(initial=0.01)
    return float(10 ** np.floor(np.log10(np.clip(lowest, smallest * 1.001, 0.01))))


def percent_axis(axes: Axes, top: float) -> None:
    """Set per cent on y, linear below 0.1 % and a log scale above, up to the decade above `top`."""
    axes.set_yscale("symlog", linthresh=0.1)
    last = float(next(tick for tick in (1, 10, 100) if top <= tick or tick == 100))
    axes.set_ylim(-0.01, last * 1.05)
    axes.set_yticks([tick for tick in (0, 0.1, 1, 10, 100) if tick <= last])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def mark_thresholds(axes: Axes, which: Literal["x", "y"], names: bool = True) -> None:
    """Draw lines at the thresholds of near-zero and high JS, named in the margin, where no data is."""
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
    """Say in the middle of a panel why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=TEXT)


def tidy(figure: Figure) -> None:
    """Make ticks small, now, since matplotlib makes some of them only when it draws, outside of `style()`."""
    for axes in figure.axes:
        axes.tick_params(labelsize=TEXT)
        axes.xaxis.label.set_fontsize(8.5)
        axes.yaxis.label.set_fontsize(8.5)


def legend(figure: Figure, axes: Axes) -> None:
    """Put a panel's legend below the figure, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    width = 0.55 * TEXT * (max(map(len, labels)) + 8)  # points of a column
    columns = int(np.clip(72 * figure.get_figwidth() // width, 1, len(labels)))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=TEXT, columnspacing=1.2
    )


def heading(figure: Figure, title: str, count: str) -> None:
    """Set the figure's title, and below it what it counts."""
    width = int(72 * figure.get_figwidth() / (0.55 * 9))
    lines = [part for line in (*title.splitlines(), count) for part in textwrap.wrap(line, width)]
    figure.suptitle(figure_text("\n".join(lines)), fontsize=9)


def _escaped(letter: str, glyphs: Collection[int]) -> str:
    """The letter, or an escape where it is invisible or the font has no glyph."""
    if letter.isprintable() and ord(letter) in glyphs:
        return letter
    return letter.encode("unicode_escape").decode()


def _glyphs() -> Collection[int]:
    return get_font(findfont(FontProperties())).get_charmap()


def figure_text(text: str) -> str:
    """The text with dollars that start no formula, and escapes where the font has no glyph."""
    glyphs = _glyphs()
    lines = ("".join(_escaped(letter, glyphs) for letter in line) for line in text.split("\n"))
    return "\n".join(lines).replace("$", r"\$")


def counts_text(group: Numbers) -> str:
    """Words for the numbers of tokens, responses and problems of a group."""
    return f"n = {group['tokens']:,} tokens, {group['responses']:,} responses, {group['problems']:,} problems"


def compact(count: int) -> str:
    """A count in at most seven characters."""
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= max(unit, 10**5):
            return f"{count / unit:.4g}{name}"
    return f"{count:,}"


def token_label(token: str, longest: int = 12) -> str:
    """A token in quotes on one line, as `repr` writes it: shortened, and escaped where the font has no glyph."""
    glyphs = _glyphs()
    text = ""
    for index, letter in enumerate(token):
        piece = rf"\{letter}" if letter in "\\'" else _escaped(letter, glyphs)
        if len(text) + len(piece) > longest and index:
            return figure_text(f"'{text}'…")
        text += piece
    return figure_text(f"'{text}'")


def number(value: float) -> str:
    """A threshold or a tick, without a row of zeros."""
    return f"{value:g}" if value >= 1e-3 else f"{value:.0e}".replace("e-0", "e-")


def short(label: str, longest: int = 28) -> str:
    """A row's name on one line, shortened to `longest` characters."""
    line = " ".join(label.split())
    return figure_text(line if len(line) <= longest else f"{line[: longest - 1]}…")
