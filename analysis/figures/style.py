"""One look for every figure."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
"""Colours of Okabe and Ito, which the colour-blind can tell apart."""

MAP = "cividis"
"""Colour map of two-dimensional histograms."""


@contextmanager
def style() -> Iterator[None]:
    """Context in which every figure is drawn."""
    look: Any = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}
    with matplotlib.rc_context(look):
        yield
