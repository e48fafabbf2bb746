"""One look for every figure."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from tokenshift.analysis.storage.whole_file import whole_file

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
"""Okabe-Ito's, told apart by the colour-blind."""

MAP = "cividis"


@contextmanager
def style() -> Iterator[None]:
    """Draw inside of it."""
    look: Any = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}
    with matplotlib.rc_context(look):
        yield


def save(figure: Figure, path: Path, formats: Sequence[str] = ("png", "svg")) -> Path:
    """Write a file a format beside each other; the first one's path."""
    for name in formats:
        undated = {"metadata": {"Date": None}} if name == "svg" else {}  # the same figure is the same file
        salt = matplotlib.rc_context({"svg.hashsalt": "tokenshift"})
        with whole_file(path.with_suffix(f".{name}")) as partial, salt:
            figure.savefig(partial, dpi=160, format=name, **undated)  # type: ignore[arg-type]
        figure.set_layout_engine("none")  # it is laid out now, which takes as long as drawing
    return path.with_suffix(f".{formats[0]}")
