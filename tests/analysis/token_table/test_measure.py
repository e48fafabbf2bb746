"""The measures of a shift: one list, from which every room takes names, order and refusals."""

import pytest

from tokenshift.analysis.comparison.results import SHIFT
from tokenshift.analysis.comparison.summary import MOVED
from tokenshift.analysis.token_table.measure import (
    DEFAULT_MEASURE,
    SHIFT_MEASURES,
    check_measure,
    measure_name,
    second_measure,
)


def test_the_publications_measure_comes_first_and_each_stands_beside_the_other() -> None:
    assert SHIFT_MEASURES == ("js_top_p", "js")
    assert DEFAULT_MEASURE == "js_top_p"
    assert [measure_name(measure) for measure in SHIFT_MEASURES] == ["JS at top-p", "full JS"]
    assert [second_measure(measure) for measure in SHIFT_MEASURES] == ["js", "js_top_p"]
    with pytest.raises(ValueError, match="measure='kl' is not known; choose js_top_p or js"):
        check_measure("kl")


def test_a_comparison_has_every_number_by_every_measure() -> None:
    assert list(MOVED) == [*(f"{measure}_{name}" for measure in SHIFT_MEASURES for name in SHIFT), "recovery"]
