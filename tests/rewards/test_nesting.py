"""Deeply nested formulas are read quickly, as before, or not at all."""

import time

import pytest

from tokenshift.rewards.formulas import LARGEST, _size, parse_formula
from tokenshift.rewards.nesting import depths, is_hopeless, without_doubled_brackets
from tokenshift.rewards.verdicts import Verdict
from tokenshift.rewards.worker import verdict_on


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0)),
        ("1+2", (0, 0)),
        ("(1)", (1, 0)),
        ("1+(1)", (0, 0)),
        ("((1)(2))", (2, 0)),
        ("(1+(1+(1)))", (1, 0)),
        (r"\frac{1}{\sqrt{2}}", (0, 0)),
        (r"\sin(\cos(x))", (2, 0)),
        (r"\left(\left\{(1,2)\right\}\right)", (2, 0)),
        ("x^{2}", (0, 1)),
        ("x^{(x_{1})}", (1, 2)),
        (")))((", (1, 0)),
    ],
)
def test_depths(text: str, expected: tuple[int, int]) -> None:
    assert depths(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("((x))", "((x))"),
        ("(" * 9 + "x+1" + ")" * 9, "(x+1)"),
        ("(" * 8 + "(x)(y)" + ")" * 8, "((x)(y))"),
        ("(" * 8 + "x", "(" * 8 + "x"),
        (r"\left(" + "(" * 8 + "x" + ")" * 8 + r"\right)", r"\left((x)\right)"),
        ("f(" + "(" * 8 + "x" + ")" * 8 + ")", "f(x)"),
        ("{" * 8 + "x" + "}" * 8, "{x}"),
        (r"\frac" + "{" * 8 + "x" + "}" * 8 + "{2}", r"\frac{x}{2}"),
        (r"\{" * 8 + "x" + r"\}" * 8, r"\{" * 8 + "x" + r"\}" * 8),
    ],
)
def test_doubled_brackets_of_deep_formulas_are_left_out(text: str, expected: str) -> None:
    assert without_doubled_brackets(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "(1+" * 60 + "5" + ")" * 60,
        "x^{" * 60 + "x" + "}" * 60,
        r"\sin(" * 60 + "x" + ")" * 60,
        "2^{" * 59 + "2" + "}" * 59,
    ],
)
def test_hopeless_ones_take_no_time(text: str) -> None:
    verdict_on("x+1", r"\boxed{1+x}")  # the parser is warm
    start = time.process_time()
    assert verdict_on("7", f"\\boxed{{{text}}}") is Verdict.WRONG
    assert verdict_on(text, r"\boxed{7}") in (Verdict.NO_GOLD, Verdict.WRONG)
    assert time.process_time() - start < 5


def test_many_brackets_around_a_right_answer_are_right() -> None:
    for depth in (1, 5, 15, 40):
        assert verdict_on("x+1", f"\\boxed{{{'(' * depth}1+x{')' * depth}}}") is Verdict.CORRECT


@pytest.mark.parametrize(
    ("text", "hopeless"),
    [
        ("(" * 36 + "x" + ")" * 36, False),
        ("(" * 37 + "x" + ")" * 37, True),
        ("x^{" * 20 + "x" + "}" * 20, False),
        ("x^{" * 21 + "x" + "}" * 21, True),
        ("2^{" * 50 + "2" + "}" * 50, False),
        (r"\sin(" * 37 + "x" + ")" * 37, True),
        (r"\sqrt{" * 100 + "2" + "}" * 100, False),
        (r"1+\frac{1}{" * 50 + "2" + "}" * 50, False),
        ("(1+" * 50 + "x" + ")" * 50, False),
    ],
)
def test_what_is_hopeless(text: str, hopeless: bool) -> None:
    assert is_hopeless(text) is hopeless


def test_a_tower_is_measured_in_linear_time() -> None:
    formula = parse_formula("2^{" * 16 + "2" + "}" * 16)
    _size.cache_clear()
    start = time.process_time()
    assert _size(formula) > LARGEST
    assert time.process_time() - start < 1


@pytest.mark.parametrize("base", ["1", "0", "(-1)"])
def test_powers_of_one_have_the_size_of_their_exponent(base: str) -> None:
    start = time.process_time()
    assert verdict_on("5", f"\\boxed{{{base}^{{9^{{9^{{9}}}}}}}}") is Verdict.WRONG
    assert time.process_time() - start < 3
