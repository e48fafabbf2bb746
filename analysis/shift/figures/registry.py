"""The figures of the shift, each one decorated function with its caption.

A family holds the figures that are drawn from the same numbers. To add a figure to all pages of a family, decorate a
function that returns a matplotlib figure; nothing else has to be changed:

    @register_summary_figure("sparsity", caption="Share of tokens whose JS lies below each threshold, {n}.")
    def sparsity(groups, title): ...

The name is the file's, and the caption is a template in the words that the family's caller gives (for a summary those
of `every_figure.caption_words`).
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from matplotlib.figure import Figure

from tokenshift.analysis.registry import Registry

Draw = TypeVar("Draw", bound=Callable[..., Figure])


def _always(numbers: Any) -> bool:
    return True


@dataclass(frozen=True)
class RegisteredFigure:
    """A figure of a family.

    Attributes:
        draw: the function, called with the numbers and a title, and with those options that it takes.
        caption: template of the caption, plain text.
        drawable: says whether the numbers have what the figure shows.
    """

    draw: Callable[..., Figure]
    caption: str
    drawable: Callable[[Any], bool]


class FigureFamily:
    """Figures that are drawn from the same numbers.

    Args:
        name: the family's name, for messages.
    """

    def __init__(self, name: str) -> None:
        self._figures: Registry[RegisteredFigure] = Registry("figure", f"figure of {name}")

    def register(
        self, name: str, *, caption: str, drawable: Callable[[Any], bool] = _always
    ) -> Callable[[Draw], Draw]:
        """Decorator that adds a figure.

        Args:
            name: the figure's file name, without an extension.
            caption: template of the caption; braces hold the words given to `draw`.
            drawable: says whether some numbers have what the figure shows; otherwise the figure is left out.

        Raises:
            ValueError: if the name is taken by another function.
        """

        def decorate(function: Draw) -> Draw:
            self._figures.add(name, function, RegisteredFigure(function, caption, drawable))
            return function

        return decorate

    def draw(
        self, numbers: Any, title: str, *, words: Mapping[str, str] | None = None, **options: Any
    ) -> dict[str, tuple[Figure, str]]:
        """Every figure that the numbers allow, with its caption, by name.

        Args:
            numbers: what the figures of the family are drawn from.
            title: the title of every figure.
            words: the words that stand in braces in captions.
            options: further arguments; each goes to the figures that take it.
        """
        drawn = {}
        for name in self._figures:
            figure = self._figures.get(name)
            if not figure.drawable(numbers):
                continue
            known = inspect.signature(figure.draw).parameters
            chosen = {option: value for option, value in options.items() if option in known}
            drawn[name] = (figure.draw(numbers, title, **chosen), figure.caption.format_map(words or {}))
        return drawn


SUMMARY_FIGURES = FigureFamily("a summary")
"""From one kind of trajectory's groups of `summarise`, a title, and optionally `control`, such groups of a control."""

EVOLUTION_FIGURES = FigureFamily("an evolution")
"""From the rows of `evolution_rows` and a title."""

ROBUSTNESS_FIGURES = FigureFamily("a robustness analysis")
"""From the rows of `robustness_row` and a title."""

PROBE_FIGURES = FigureFamily("a probe")
"""From the per-token table of one kind of trajectory and a title."""

register_summary_figure = SUMMARY_FIGURES.register
register_evolution_figure = EVOLUTION_FIGURES.register
register_robustness_figure = ROBUSTNESS_FIGURES.register
register_probe_figure = PROBE_FIGURES.register
