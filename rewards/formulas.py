r"""Formulas: read by math-verify's parser, and compared in numbers, or by math-verify where numbers cannot say.

math-verify rounds to six decimals, drops the base of a number, and takes equations without solutions for equal; each
of its acceptances is therefore checked in numbers, at random points where there are variables.
"""

import random
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig, latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from math_verify import verify
from math_verify.grader import should_treat_as_complex
from sympy.core.relational import Relational

NORMALIZATION = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)
CONVERSION = ConversionConfig(lowercase_symbols=False)
PRECISION = 60  # digits
EXACT = sympy.Rational(1, 10**45)  # relative difference of numbers that are the same
ROUNDED = sympy.Rational(1, 2 * 10**6)  # the same, where a decimal is in them
POINTS = 4
LONGEST_FORMULA = 3000  # characters


@lru_cache(maxsize=4096)
def parse_formula(text: str) -> Any:
    """The sympy object that a formula in LaTeX is; None where it cannot be read. May never return."""
    if not text or len(text) > LONGEST_FORMULA or not text.isascii():
        return None
    try:
        return latex2sympy(
            text,
            is_real=not should_treat_as_complex(text),
            convert_degrees="\\circ" in text,
            conversion_config=CONVERSION,
            normalization_config=NORMALIZATION,
        )
    except Exception:  # the parser raises many kinds
        return None


def same_formula(gold: str, answer: str, relations_are_sets: bool = False) -> bool:
    """Whether math-verify takes an answer for the gold answer, and numbers agree. May never return.

    Args:
        gold: a formula in LaTeX.
        answer: another.
        relations_are_sets: whether `1 < x < 2` is the same as the interval.
    """
    gold_formula, formula = parse_formula(gold), parse_formula(answer)
    if gold_formula is None or formula is None:
        return False
    if (same := _same_everywhere(gold_formula, formula)) is not None:
        return same
    accepted = verify(gold_formula, formula, allow_set_relation_comp=relations_are_sets, timeout_seconds=None)
    return accepted and agree_in_numbers(gold_formula, formula)


def _same_everywhere(gold: Any, answer: Any) -> bool | None:
    """Whether two exact expressions have the same values at all points; None where numbers cannot say.

    At random points of both signs, two expressions of one value are one: no simplification is needed, which takes a
    hundred times as long.
    """
    if not isinstance(gold, sympy.Expr) or not isinstance(answer, sympy.Expr):
        return None
    if gold == answer:
        return True
    if gold.atoms(sympy.Float) | answer.atoms(sympy.Float) or isinstance(gold, sympy.MatrixExpr):
        return None
    said = 0
    for point in _points(gold, answer):
        values = [_value(formula, point) for formula in (gold, answer)]
        if None in values:
            continue
        largest = max(abs(value) for value in values)
        if largest and abs(values[0] - values[1]) > EXACT * largest:
            return False
        said += 1
    return True if said >= min(2, len(_points(gold, answer))) else None


def agree_in_numbers(gold: Any, answer: Any) -> bool:
    """Whether two sympy objects that are said to be equal have the same values, where these can be computed."""
    if isinstance(gold, sympy.FiniteSet | sympy.Tuple) and isinstance(answer, sympy.FiniteSet | sympy.Tuple):
        return _agree_in_items(list(gold.args), list(answer.args))
    if isinstance(gold, sympy.Interval) and isinstance(answer, sympy.Interval):
        return _agree_in_items([gold.start, gold.end], [answer.start, answer.end])
    if isinstance(gold, sympy.MatrixBase) and isinstance(answer, sympy.MatrixBase):
        pairs = zip(gold, answer, strict=True) if gold.shape == answer.shape else [(0, 1)]
        return all(agree_in_numbers(sympy.sympify(one), sympy.sympify(other)) for one, other in pairs)
    if isinstance(gold, Relational) and isinstance(answer, Relational):
        return _agree_in_relation(gold, answer)
    if isinstance(answer, sympy.Eq) and not isinstance(gold, Relational):
        return agree_in_numbers(gold, answer.rhs)
    if isinstance(gold, sympy.Eq) and not isinstance(answer, Relational):
        return agree_in_numbers(gold.rhs, answer)
    if not isinstance(gold, sympy.Expr) or not isinstance(answer, sympy.Expr):
        return True
    return _agree_in_value(gold, answer)


def _agree_in_items(gold: list[Any], answer: list[Any]) -> bool:
    """Whether each item agrees with one of the other's."""
    if len(gold) != len(answer):
        return False
    left = list(answer)
    for item in gold:
        match = next((index for index, other in enumerate(left) if agree_in_numbers(item, other)), None)
        if match is None:
            return False
        del left[match]
    return True


def _agree_in_value(gold: sympy.Expr, answer: sympy.Expr) -> bool:
    tolerance = ROUNDED if gold.atoms(sympy.Float) | answer.atoms(sympy.Float) else EXACT
    for point in _points(gold, answer):
        values = [_value(formula, point) for formula in (gold, answer)]
        if None in values:
            continue
        largest = max(abs(value) for value in values)
        if largest and abs(values[0] - values[1]) > tolerance * largest:
            return False
    return True


def _agree_in_relation(gold: Relational, answer: Relational) -> bool:
    """Whether the differences of both sides are in one ratio everywhere, or the solutions are known and the same."""
    differences = [relation.lhs - relation.rhs for relation in (gold, answer)]
    ratios: list[Any] = []
    for point in _points(*differences):
        values = [_value(formula, point) for formula in differences]
        if None in values or 0 in values:
            continue
        ratios.append(values[0] / values[1])
    tolerance = ROUNDED if gold.atoms(sympy.Float) | answer.atoms(sympy.Float) else EXACT
    if len(ratios) > 1:
        if all(abs(ratio - ratios[0]) <= tolerance * abs(ratios[0]) for ratio in ratios):
            return True
    elif ratios:
        return bool(abs(ratios[0]) == 1)
    try:
        solutions = [set(sympy.solve(relation, *relation.free_symbols, dict=False)) for relation in (gold, answer)]
    except Exception:  # sympy raises many kinds
        return False
    return bool(solutions[0]) and solutions[0] == solutions[1]


def _points(*formulas: sympy.Expr) -> list[dict[Any, Any]]:
    """Points at which formulas are compared: values of their variables, the same each time."""
    symbols = sorted(set().union(*(formula.free_symbols for formula in formulas)), key=str)
    if not symbols:
        return [{}]
    numbers = random.Random(0)
    points = [[sympy.Rational(numbers.randint(101, 999), 317) for _ in symbols] for _ in range(POINTS)]
    return [
        {
            symbol: sympy.I if symbol.name == "i" else number * (-1 if (row + index) % 2 else 1)
            for index, (symbol, number) in enumerate(zip(symbols, point, strict=True))
        }
        for row, point in enumerate(points)
    ]


def _value(formula: sympy.Expr, point: dict[Any, Any]) -> Any:
    """The formula's value at a point; None where it has none, or it cannot be computed."""
    try:
        value = sympy.sympify(formula).doit().subs(point).evalf(PRECISION)
    except Exception:  # sympy raises many kinds
        return None
    return value if value.is_number and value.is_finite and not value.free_symbols else None
