"""Which left sides of an equation name a value, and which are formulas of variables."""

import pytest

from tokenshift.rewards.answer_names import names_a_value


@pytest.mark.parametrize(
    "left",
    [
        *("x", "AB", "ABCD", r"\angle ABC", r"m\angle B", "f(2)", "f'(x)", "f^{-1}(x)", "f(f(2))", "g(-1)", "a_{10}"),
        *(r"x_{\max}", r"P(A \cup B)", r"n(A \cap B)", r"\text{area}", "total cost", "sum", "ans", "Answer", "gcd"),
        *("area of triangle ABC", r"\gcd(a,b)", "E(X)", "[ABC]", "|AB|", r"\overline{AB}", r"\frac{dy}{dx}", "cows"),
        *(
            "(x,y)",
            r"(r,\theta)",
            "(x_1,x_2)",
            r"\lambda",
            "S_n",
            "number of ways",
            "cost per kg",
            "tickets",
            "profit",
        ),
    ],
)
def test_names(left: str) -> None:
    assert names_a_value(left)


@pytest.mark.parametrize(
    "left",
    [
        *("abcd", "ab", "xyz", "pqrs", "abcde", "abcdefgh", "axby", "abxy", "mnpq", "stuv", "wxyz", "abac", "aaaa"),
        *("a b c d", "rs t", r"a\cdot b", "2x", "x+y", "x^2", "a_1a_2", r"\alpha\beta", r"x\theta", "ABx"),
        *(
            "(x)(y)",
            r"\lfloor x\rfloor",
            "e^x",
            "|x|",
            "x/y",
            r"\frac{a}{b}",
            r"\sin x",
            "x(y)",
            "x(x+1)",
            "a(b+c)",
            "-x",
        ),
        "x!",
    ],
)
def test_formulas_are_no_names(left: str) -> None:
    assert not names_a_value(left)
