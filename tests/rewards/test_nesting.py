"""Deeply nested formulas are read quickly, as before, or not at all."""

import time

import pytest

from tokenshift.rewards.formulas import _fast_prediction, _in_order, _parsed, _size, parse_formula
from tokenshift.rewards.nesting import DEEP, HOPELESS, depths
from tokenshift.rewards.verdicts import Verdict
from tokenshift.rewards.worker import verdict_on


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0)),
        ("1+2", (0, 0)),
        ("(1)", (1, 0)),
        ("(1)(2)", (1, 0)),
        (r"\frac{1}{\sqrt{2}}", (2, 0)),
        (r"\left\{(1,2)\right\}", (2, 0)),
        ("x^{2}", (0, 1)),
        ("x^{(x_{1})}", (1, 2)),
        (r"\lfloor x \rfloor", (1, 0)),
        (")))((", (2, 0)),
        (r"\\(", (1, 0)),
    ],
)
def test_depths(text: str, expected: tuple[int, int]) -> None:
    assert depths(text) == expected


@pytest.mark.parametrize(
    "text", ["(x+1)(x-1)", r"\sin(\cos(\tan(x)))", r"\sqrt{1+\sqrt{2}}", "((((1))))", "f(g(2))+3"]
)
def test_the_fast_way_reads_the_same(text: str) -> None:
    with _fast_prediction():
        fast = _parsed(text)
    assert fast is not None
    assert _in_order(fast) == _in_order(_parsed(text))


@pytest.mark.parametrize(
    "text",
    [
        "(" * 300 + "5" + ")" * 300,
        "x^{" * 60 + "x" + "}" * 60,
        r"\sin(" * 60 + "x" + ")" * 60,
        "2^{" * 59 + "2" + "}" * 59,
    ],
)
def test_hopeless_ones_take_no_time(text: str) -> None:
    assert max(depths(text)) > HOPELESS
    verdict_on("x+1", r"\boxed{1+x}")  # the parser is warm
    start = time.process_time()
    assert verdict_on("7", f"\\boxed{{{text}}}") is Verdict.WRONG
    assert verdict_on(text, r"\boxed{7}") in (Verdict.NO_GOLD, Verdict.WRONG)
    assert time.process_time() - start < 3


def test_many_brackets_around_a_right_answer_are_right() -> None:
    for depth in (1, 5, 15, 40):
        assert verdict_on("x+1", f"\\boxed{{{'(' * depth}1+x{')' * depth}}}") is Verdict.CORRECT
    assert DEEP < 40


def test_a_tower_is_measured_in_linear_time() -> None:
    formula = parse_formula("2^{" * 16 + "2" + "}" * 16)
    _size.cache_clear()
    start = time.process_time()
    assert _size(formula) > 1e9
    assert time.process_time() - start < 1


@pytest.mark.parametrize("base", ["1", "0", "(-1)"])
def test_powers_of_one_have_the_size_of_their_exponent(base: str) -> None:
    start = time.process_time()
    assert verdict_on("5", f"\\boxed{{{base}^{{9^{{9^{{9}}}}}}}}") is Verdict.WRONG
    assert time.process_time() - start < 3
