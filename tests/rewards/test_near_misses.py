"""Near misses that were once accepted, and right answers that were once rejected."""

import pytest

from tokenshift.rewards.verdicts import Verdict
from tokenshift.rewards.worker import read_gold, verdict_on

NO_UNITS = (
    *("squared", "cubed", "inverse", "base seven", "(base 7)", "th root", "negative", "half", "wrong", "not"),
    *("remainder", "approximately", "fewer", "divided", "plus"),
)
GOLDS = {  # gold answer -> right answers, near misses
    "5": (
        "5|5 apples|5 green apples",
        r"5 million dollars|5\text{ thousand people}|5\text{ dozen eggs}|5\text{ tenths}|5\text{ hundredths}"
        r"|5\text{ halves}|5\text{ factorial}|5\text{ below zero}|5\text{ at least}|5\text{ or more}|5\text{ at most}"
        r"|5\text{ less than}",
    ),
    "5 million dollars": (r"5000000|\$5{,}000{,}000|\$5\text{ million}|5 million dollars", "5|5 dollars"),
    r"3\text{ billion people}": ("3000000000", "3"),
    "150 million km": ("150000000|150000000 km", "150"),
    r"5\text{ dozen eggs}": (r"60|60\text{ eggs}", "5"),
    r"3\text{ tenths}": (r"0.3|\frac{3}{10}", "3"),
    "12": (
        "12|12 ways",
        "|".join(rf"12\text{{ {words}}}" for words in NO_UNITS),
    ),
    "1,2": ("2,1|1 and 2", "1<x<2"),
    "1 or 2": ("1, 2|x=1 or x=2", "1<x<2"),
    "1<x<2": ("1<x<2|(1,2)|2>x>1", "1 or 2|1;2|x=1 or x=2"),
    "1.000.000": ("1000000|1,000,000", "0|1"),
    "2.000.000": ("2000000", "0"),
    "1.234.567": ("1234567", "1.234567"),
    r"8\text{ MW}": (r"8\text{ MW}|8000\text{ kW}", r"8\text{ mW}"),
    r"8\text{ mg}": (r"8\text{ mg}", r"8\text{ Mg}"),
    r"8\text{ mL}": (r"8\text{ ml}", r"8\text{ ML}"),
    r"8\text{ GB}": (r"8\text{ GB}", r"8\text{ Gb}"),
    r"5\text{ m}": (r"5\text{ m}|500\text{ cm}", r"5\text{ M}"),
    r"5\text{ km}": (r"5\text{ KM}|5\text{ Km}", r"5\text{ m}"),
    r"\textbf{(D)}\ 12": (r"12|D|(D)|\textbf{(D)}\ 12", r"\textbf{(D)}\ 13|13|A"),
    "3,3": ("3,3", r"\{3\}|3"),
    r"\{\{1\},\{2\}\}": (r"\{\{2\},\{1\}\}", "1,2"),
    r"0.\overline{3}": ("0.(3)|1/3", "0.3"),
    '["1","2"]': ("1,2|2,1", "1"),
    '["12"]': ("12", "1,2"),
}


@pytest.mark.parametrize("gold", GOLDS)
def test_near_misses(gold: str) -> None:
    right, wrong = (texts.split("|") for texts in GOLDS[gold])
    accepted = [text for text in right + wrong if verdict_on(gold, rf"\boxed{{{text}}}") is Verdict.CORRECT]
    assert accepted == right


@pytest.mark.parametrize("gold", [r"5\text{ or more}", r"12\text{ squared}", "1.2.3"])
def test_golds_that_are_no_quantity_cannot_be_read(gold: str) -> None:
    assert read_gold(gold) is None
