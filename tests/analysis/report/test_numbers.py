"""A number, its interval and its deviation as text, and tables of them in Markdown."""

import pytest

from tokenshift.analysis.report.markdown import markdown_table
from tokenshift.analysis.report.numbers import PERCENT, interval_text, number_text, spread_text

ENTRY = {"value": 0.51234, "low": 0.4, "high": 0.625}


def test_numbers_without_an_interval() -> None:
    assert number_text(0.51234) == "0.512"
    assert number_text(0.51234, scale=PERCENT, digits=".1f") == "51.2"
    assert number_text(0.0) == "0"
    assert number_text(None) == "-"
    assert number_text(None, missing="none") == "none"


def test_numbers_with_their_interval() -> None:
    assert interval_text(ENTRY) == "0.512 [0.4, 0.625]"
    assert interval_text(ENTRY, scale=PERCENT, digits=".1f") == "51.2 [40.0, 62.5]"
    assert interval_text(ENTRY, scale=PERCENT, digits=".0f", unit=" %") == "51 % [40, 62]"
    assert interval_text({**ENTRY, "low": None, "high": None}, scale=PERCENT) == "51.2"
    assert interval_text({"value": 0.0, "low": 0.0, "high": 0.0}) == "0 [0, 0]"


def test_differences_show_their_sign() -> None:
    difference = {"difference": 0.02, "low": -0.01, "high": 0.05}
    assert interval_text(difference, key="difference", scale=PERCENT, digits="+.2f") == "+2.00 [-1.00, +5.00]"
    assert interval_text(difference, key="difference", digits="+.3g", ends=".3g") == "+0.02 [-0.01, 0.05]"


@pytest.mark.parametrize("entry", [None, {"value": None, "low": None, "high": None}])
def test_no_number(entry: dict[str, None] | None) -> None:
    assert interval_text(entry) == "-"
    assert interval_text(entry, missing="no such token") == "no such token"


def test_means_with_their_deviation() -> None:
    assert spread_text({"value": 0.5, "sd": 0.01}, scale=PERCENT, digits=".2f") == "50.00 ± 1.00"
    assert spread_text({"value": 0.5, "sd": None}, digits=".1e") == "5.0e-01"  # of one seed
    assert spread_text({"value": None, "sd": None}) == "-"


def test_cells_end_no_markdown_table() -> None:
    text = markdown_table(["name", "a|b"], [["x | y", "1"], ["two\nlines", "2\r\n\u2028"], ["<b>", "< 0.1"]])
    assert text == "| name | a\\|b |\n| --- | --- |\n| x \\| y | 1 |\n| two lines | 2  |\n| &lt;b> | < 0.1 |\n"
