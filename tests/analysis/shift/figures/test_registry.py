"""A figure is one decorated function: it is drawn with its caption where the numbers allow it."""

from typing import Any

import pytest
from helpers import hand_table
from matplotlib.figure import Figure

from tokenshift.analysis.shift.figures.every_figure import caption_words, summary_figures
from tokenshift.analysis.shift.figures.registry import SUMMARY_FIGURES, FigureFamily, register_summary_figure
from tokenshift.analysis.shift.summary import summarise


def test_options_go_to_the_figures_that_take_them() -> None:
    family = FigureFamily("a test")

    @family.register("plain", caption="{n} of {n}")
    def plain(numbers: int, title: str) -> Figure:
        return Figure(figsize=(numbers, 1))

    @family.register("compared", caption="no word", drawable=lambda numbers: numbers > 1)
    def compared(numbers: int, title: str, control: int | None = None) -> Figure:
        return Figure(figsize=(numbers, control or 1))

    drawn = family.draw(2, "t", words={"n": "7"}, control=3)
    assert list(drawn) == ["plain", "compared"]
    assert drawn["plain"][1] == "7 of 7"
    assert tuple(drawn["plain"][0].get_size_inches()) == (2, 1)
    assert tuple(drawn["compared"][0].get_size_inches()) == (2, 3)
    assert list(family.draw(1, "t", words={"n": "7"})) == ["plain"]
    assert plain(4, "t").get_figwidth() == 4  # the function stays as it was
    with pytest.raises(KeyError, match="n"):
        family.draw(1, "t")


def test_a_name_is_taken_once() -> None:
    family = FigureFamily("a test")
    family.register("a", caption="")(len)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="figure of a test 'a' is registered already"):
        family.register("a", caption="")(repr)  # type: ignore[type-var]


def test_a_figure_of_ones_own_is_in_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_entries", "_functions"):
        registered = getattr(SUMMARY_FIGURES._figures, name)
        monkeypatch.setattr(SUMMARY_FIGURES._figures, name, dict(registered))

    @register_summary_figure("mine", caption="Mine, {n}.{dashed}")
    def mine(groups: dict[str, Any], title: str) -> Figure:
        return Figure()

    groups = summarise(hand_table.table(), resamples=5)["rl"]
    drawn = summary_figures(groups, "t", control=groups)
    assert list(drawn)[-1] == "mine"
    assert drawn["mine"][1] == (
        "Mine, n = 40 tokens, 4 responses, 3 problems. Dashed: all responses of the control, n = 40 tokens."
    )
    assert caption_words(groups)["dashed"] == ""
