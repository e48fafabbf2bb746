r"""Formulas: read by math-verify's parser, and compared in numbers, or by math-verify where numbers cannot say.

Two exact formulas are compared at a precision that exceeds the digits of the largest number in them, and not at all
where that number is too large to compute: those are the same only where they are written the same.

math-verify rounds to six decimals, drops the base of a number, and takes equations without solutions for equal; each
of its acceptances is therefore checked in numbers, at random points where there are variables.
"""

import math
import random
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig, latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from math_verify import verify
from math_verify.grader import should_treat_as_complex
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

from tokenshift.rewards.matching import same_in_any_order
from tokenshift.rewards.nesting import is_hopeless, without_doubled_brackets

NORMALIZATION = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)
CONVERSION = ConversionConfig(lowercase_symbols=False)
PRECISION = 60  # digits past those of the largest and the smallest number that occur
MARGIN = 30  # of these digits, how many must agree
LARGEST = 100_000  # digits of a number that is computed
LARGEST_IRRATIONAL = 5_000  # the same, where it is not a fraction
LARGEST_VARIABLE = 3  # digits of the values that variables take
ROUNDED = sympy.Rational(1, 2 * 10**6)  # relative difference of the same numbers, where a decimal is in them
STEPPED = (
    *(sympy.floor, sympy.ceiling, sympy.frac, sympy.Mod),
    *(sympy.Min, sympy.Max, sympy.Abs, sympy.sign, sympy.Piecewise),
)
BOUND = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit, sympy.Derivative, sympy.Lambda, sympy.Subs)
UNEVALUATED = (sympy.Limit, sympy.Derivative, sympy.Integral)
COEFFICIENT = re.compile(r"(?<![\^_\d.])\d+(?:\.\d+)?(?=\s*(?:\\binom|\(|\{(?=\d)))")
PRODUCT = re.compile(
    r"(?<=\d)\)(?=\s*(?:\\frac|\\binom|\d|\())"
    r"|\\binom\s*\{[^{}]*\}\s*\{[^{}]*\}(?=\s*(?:\\binom|\\frac|\d|\())"
)
"""Factors without a sign between them that math-verify's parser would add, as in the mixed number `1 1/2`."""
POINTS = 4
DIRECTIONS: dict[type, tuple[int, bool]] = {  # whether the left side is the larger one, and whether strictly
    sympy.StrictLessThan: (-1, True),
    sympy.LessThan: (-1, False),
    sympy.StrictGreaterThan: (1, True),
    sympy.GreaterThan: (1, False),
}
MOST_SOLVED = 2  # variables of an equation that is solved
MOST_OPERATIONS = 60  # of an equation that is solved
HIGHEST_POWER = 8  # in an equation that is solved
MOST_MARKS = 80  # powers and subscripts of a formula that is read
MOST_SIGNS = 700  # of a formula that is read
MOST_STEPS = 6  # numbers in formulas at whose sides they are compared
LONGEST_FORMULA = 3000  # characters


@lru_cache(maxsize=4096)
def parse_formula(text: str) -> Any:
    """The sympy object that a formula in LaTeX is; None where it cannot be read. May never return."""
    if not text or len(text) > LONGEST_FORMULA or not text.isascii():
        return None
    text = without_doubled_brackets(text)
    if is_hopeless(text):
        return None
    try:
        return latex2sympy(
            PRODUCT.sub(r"\g<0> \\cdot ", COEFFICIENT.sub(r"\g<0> \\cdot ", text)),
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
    if is_long(gold) or is_long(answer):
        return sorted(_terms(gold)) == sorted(_terms(answer))
    gold_formula, formula = parse_formula(gold), parse_formula(answer)
    if gold_formula is None or formula is None:
        return False
    sympy_objects = (gold_formula, formula)
    if any(_has(one, UNEVALUATED) for one in sympy_objects) or max(map(_digits, sympy_objects)) > LARGEST:
        return _in_order(gold_formula) == _in_order(formula)
    if (same := _same_everywhere(gold_formula, formula)) is not None:
        return same
    relations = isinstance(gold_formula, Relational) and isinstance(formula, Relational)
    if relations and (agreed := _agree_in_sides(gold_formula, formula)) is not None:
        return agreed
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
    if gold.atoms(sympy.Float) and answer.atoms(sympy.Float):
        gold, answer = _with_exact_decimals(gold), _with_exact_decimals(answer)
    if gold.atoms(sympy.Float) | answer.atoms(sympy.Float) or isinstance(gold, sympy.MatrixExpr):
        return None
    said = 0
    points, digits = _points(gold, answer), max(_digits(gold), _digits(answer))
    for point in points:
        same = _same_at(gold, answer, point, digits)
        if same is False:
            return False
        said += same is not None
    return True if said >= min(2, len(points)) else None


def _same_at(gold: Any, answer: Any, point: dict[Any, Any], digits: int) -> bool | None:
    """Whether two exact expressions, whose numbers have at most so many digits, have one value at a point.

    None where either has none, or it cannot be said.
    """
    values = [_value(formula, point, digits) for formula in (gold, answer)]
    if None in values:
        return None
    return bool(abs(values[0] - values[1]) <= _exact(digits))


def _exact(digits: int) -> Any:
    """The difference below which two values are the same, where the numbers in the formulas have so many digits."""
    return sympy.Rational(1, 10 ** (digits + MARGIN))


def _has(formula: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(formula, sympy.Basic) and bool(formula.atoms(*kinds))


def _in_order(formula: Any) -> Any:
    """The structure of a formula, the same for formulas that differ in the order of terms and factors alone."""
    if not isinstance(formula, sympy.Basic) or not formula.args:
        return str(formula)
    arguments = [_in_order(argument) for argument in formula.args]
    if isinstance(formula, sympy.Add | sympy.Mul):
        arguments.sort(key=repr)
    return (type(formula).__name__, *arguments)


def _digits(formula: Any) -> int:
    """A bound on the digits before and after the point of the numbers in a formula, none of which is computed.

    It is at least the logarithm to base 10 of the largest number, and of the reciprocal of the smallest one.
    """
    size = _size(formula) if isinstance(formula, sympy.Basic) else 1.0  # a matrix cannot be hashed
    return math.ceil(min(size, 10.0 * LARGEST))


@lru_cache(maxsize=4096)  # the exponent of a power is looked at twice
def _size(formula: Any) -> float:
    if isinstance(formula, sympy.Rational):
        return max(abs(formula.p).bit_length(), formula.q.bit_length()) * math.log10(2)
    if isinstance(formula, sympy.Float):
        return abs(float(sympy.log(abs(formula), 10))) if formula else 0.0
    if not isinstance(formula, sympy.Basic) or not formula.args:
        return float(LARGEST_VARIABLE) if isinstance(formula, sympy.Symbol) else 1.0
    sizes = [_size(argument) for argument in formula.args]
    if isinstance(formula, sympy.Pow):
        base, exponent = formula.args
        return sizes[1] if base in (0, 1, -1) else max(sizes[0], 0.5) * _magnitude(exponent)
    if isinstance(formula, sympy.exp | sympy.sinh | sympy.cosh | sympy.tanh):
        return _magnitude(formula.args[0])
    if isinstance(formula, sympy.binomial):
        return max(sizes[0], 0.5) * min(map(_magnitude, formula.args))
    if isinstance(formula, sympy.factorial | sympy.factorial2 | sympy.subfactorial | sympy.gamma):
        return max(sizes[0], 0.5) * _magnitude(formula.args[0])
    if isinstance(formula, sympy.Mul):
        return sum(sizes)
    if isinstance(formula, sympy.Add):
        return max(sizes) + math.log10(len(sizes))
    if isinstance(formula, sympy.Sum | sympy.Product):
        return sizes[0] * _magnitude(formula.args[1].args[-1])
    return 2 * max(sizes) if isinstance(formula, sympy.Function) else max(sizes)


def _magnitude(formula: Any) -> float:
    """A bound on the absolute value of an exponent, or of the number that a factorial is of."""
    if isinstance(formula, sympy.Rational):
        return float(min(abs(formula), 10**9))
    if isinstance(formula, sympy.Symbol):
        return 10.0
    if isinstance(formula, sympy.Add):
        return sum(map(_magnitude, formula.args))
    if isinstance(formula, sympy.Mul):
        return min(math.prod(map(_magnitude, formula.args)), 1e18)
    return float(10 ** min(_size(formula), 9))


def _with_exact_decimals(formula: Any) -> Any:
    return formula.xreplace({number: sympy.Rational(str(number)) for number in formula.atoms(sympy.Float)})


def is_long(text: str) -> bool:
    """Whether a formula has so many signs that reading it would take seconds; only its terms are compared as text."""
    return text.count("_") + text.count("^") > MOST_MARKS or sum(map(text.count, "+-/=*\\(")) > MOST_SIGNS


def _terms(text: str) -> list[str]:
    """The terms of each side of a formula, with their signs."""
    terms: list[str] = []
    level, start, side = 0, 0, ""
    text = re.sub(r"\s+(?![a-zA-Z])|\{(\w)\}", r"\1", text)
    for position, character in enumerate(text + "+"):
        if character in "([{":
            level += 1
        elif character in ")]}":
            level -= 1
        elif level == 0 and character in "+-=<>":
            if term := text[start:position].strip().removeprefix("+").strip():
                terms.append(side + term)
            start = position
            if character in "=<>":
                start, side = position + 1, side + character
    return terms


def _agree_in_sides(gold: Relational, answer: Relational) -> bool | None:
    """Whether two exact relations are the same by the values of their sides; None where these do not say."""
    if gold.atoms(sympy.Float) | answer.atoms(sympy.Float) or not gold.free_symbols:
        return None
    if isinstance(gold, sympy.Eq) and isinstance(answer, sympy.Eq):
        return _agree_in_relation(gold, answer)
    kinds = [type(relation) for relation in (gold, answer)]
    if not all(kind in DIRECTIONS for kind in kinds) or len(gold.free_symbols | answer.free_symbols) < 2:
        return None
    if DIRECTIONS[kinds[0]][1] != DIRECTIONS[kinds[1]][1]:
        return False
    sides = (gold.lhs, gold.rhs, answer.lhs, answer.rhs)
    if not all(isinstance(side, sympy.Expr) for side in sides):
        return None
    differences = [relation.lhs - relation.rhs for relation in (gold, answer)]
    ratios = _ratios(differences, 2 * max(map(_digits, sides)))
    if len(ratios) > 1 and all(abs(ratio - ratios[0]) <= _exact(0) for ratio in ratios):
        return bool((ratios[0] > 0) == (DIRECTIONS[kinds[0]][0] == DIRECTIONS[kinds[1]][0]))
    return False if len(gold.free_symbols | answer.free_symbols) > MOST_SOLVED else None


def agree_in_numbers(gold: Any, answer: Any) -> bool:
    """Whether two sympy objects that are said to be equal have the same values, where these can be computed."""
    if isinstance(gold, sympy.FiniteSet | sympy.Tuple) and isinstance(answer, sympy.FiniteSet | sympy.Tuple):
        return same_in_any_order(gold.args, answer.args, agree_in_numbers)
    if isinstance(gold, sympy.Interval) and isinstance(answer, sympy.Interval):
        return same_in_any_order([gold.start, gold.end], [answer.start, answer.end], agree_in_numbers)
    if isinstance(gold, sympy.MatrixBase) and isinstance(answer, sympy.MatrixBase):
        pairs = zip(gold, answer, strict=True) if gold.shape == answer.shape else [(0, 1)]
        return all(agree_in_numbers(sympy.sympify(one), sympy.sympify(other)) for one, other in pairs)
    if isinstance(gold, Relational) and isinstance(answer, Relational):
        return _agree_in_relation(gold, answer)
    if isinstance(answer, sympy.Eq) and not isinstance(gold, Relational):
        return _stands_for(answer.lhs, answer.rhs) and agree_in_numbers(gold, answer.rhs)
    if isinstance(gold, sympy.Eq) and not isinstance(answer, Relational):
        return _stands_for(gold.lhs, gold.rhs) and agree_in_numbers(gold.rhs, answer)
    if not isinstance(gold, sympy.Expr) or not isinstance(answer, sympy.Expr):
        return True
    return _agree_in_value(gold, answer)


def _stands_for(left: Any, right: Any) -> bool:
    """Whether the left side of an equation only names its right side (`f(x)`, points such as AB), or computes it."""
    if isinstance(left, sympy.Expr) and not left.free_symbols and not left.atoms(AppliedUndef):
        return agree_in_numbers(left, right)
    if isinstance(left, sympy.Mul):
        return all(isinstance(factor, sympy.Symbol) and factor.name.isupper() for factor in left.args)
    return isinstance(left, sympy.Symbol | AppliedUndef)


def _agree_in_value(gold: sympy.Expr, answer: sympy.Expr) -> bool:
    rounded = bool(gold.atoms(sympy.Float) | answer.atoms(sympy.Float))
    digits = max(_digits(gold), _digits(answer))
    for point in _points(gold, answer):
        if not rounded:
            if _same_at(gold, answer, point, digits) is False:
                return False
            continue
        values = [_value(formula, point, digits) for formula in (gold, answer)]
        if None in values:
            continue
        largest = max(abs(value) for value in values)
        if largest and abs(values[0] - values[1]) > ROUNDED * largest:
            return False
    return True


def _agree_in_relation(gold: Relational, answer: Relational) -> bool:
    """Whether the differences of both sides are in one ratio everywhere, or the solutions are known and the same."""
    if {symbol.name for symbol in gold.free_symbols} != {symbol.name for symbol in answer.free_symbols}:
        return False
    sides = (gold.lhs, gold.rhs, answer.lhs, answer.rhs)
    if not all(isinstance(side, sympy.Expr) for side in sides):
        return gold == answer
    differences = [relation.lhs - relation.rhs for relation in (gold, answer)]
    digits = 2 * max(map(_digits, sides))
    ratios = _ratios(differences, digits)
    tolerance = ROUNDED if gold.atoms(sympy.Float) | answer.atoms(sympy.Float) else _exact(digits)
    if len(ratios) > 1:
        if all(abs(ratio - ratios[0]) <= tolerance * abs(ratios[0]) for ratio in ratios):
            return True
    elif ratios:
        return bool(abs(ratios[0]) == 1)
    operations = max(sympy.count_ops(difference) for difference in differences)
    if operations > MOST_OPERATIONS or any(_degree(difference) > HIGHEST_POWER for difference in differences):
        return False
    if isinstance(gold, sympy.Eq) and isinstance(answer, sympy.Eq):
        numerators = [sympy.fraction(sympy.together(difference))[0] for difference in differences]
        ratios = _ratios(numerators, digits)
        if len(ratios) > 1 and all(abs(ratio - ratios[0]) <= _exact(digits) * abs(ratios[0]) for ratio in ratios):
            return True
    if len(gold.free_symbols) > MOST_SOLVED:
        return False
    try:
        solutions = [set(sympy.solve(relation, *relation.free_symbols, dict=False)) for relation in (gold, answer)]
    except Exception:  # sympy raises many kinds
        return False
    return bool(solutions[0]) and solutions[0] == solutions[1]


def _ratios(differences: Sequence[Any], digits: int) -> list[Any]:
    """The ratios of two formulas' values at the points where both have one that is not zero."""
    ratios: list[Any] = []
    for point in _points(*differences):
        values = [_value(formula, point, digits) for formula in differences]
        if None not in values and 0 not in values:
            ratios.append(values[0] / values[1])
    return ratios


def _degree(formula: Any) -> float:
    """The largest power of a sum or a variable in a formula."""
    exponents = [power.exp for power in formula.atoms(sympy.Pow) if power.exp.is_Rational and power.base.free_symbols]
    return max(map(abs, exponents), default=1)


def _points(*formulas: sympy.Expr) -> list[dict[Any, Any]]:
    """Points at which formulas are compared: values of their variables, the same each time."""
    symbols = sorted(set().union(*(formula.free_symbols for formula in formulas)), key=str)
    if not symbols:
        return [{}]
    numbers = random.Random(0)
    points = [[sympy.Rational(numbers.randint(101, 999), 317) for _ in symbols] for _ in range(POINTS)]
    if any(_has(formula, STEPPED) for formula in formulas):
        points += _points_between_steps(symbols, formulas)
    return [
        {
            symbol: sympy.I if symbol.name == "i" else number * (-1 if (row + index) % 2 else 1)
            for index, (symbol, number) in enumerate(zip(symbols, point, strict=True))
        }
        for row, point in enumerate(points)
    ]


def _points_between_steps(symbols: list[Any], formulas: Sequence[sympy.Expr]) -> list[list[Any]]:
    """Whole numbers, and numbers below and above each number in the formulas, each for both signs."""
    numbers = {abs(number) for formula in formulas for number in formula.atoms(sympy.Rational)}
    starts = [sympy.Integer(1), sympy.Integer(2), sympy.Integer(57), sympy.Rational(1000, 7)]
    for number in sorted(numbers, reverse=True)[:MOST_STEPS]:
        starts += [number, number + sympy.Rational(1, 3), 2 * number + 3]
    return [[start + 2 * index for index, _ in enumerate(symbols)] for start in starts for _ in range(2)]


def _value(formula: sympy.Expr, point: dict[Any, Any], digits: int) -> Any:
    """The formula's value at a point; None where it has none, or it cannot be computed.

    A fraction is exact, and any other value has as many digits as those before and after the point, and `PRECISION`.
    """
    try:
        value = sympy.sympify(formula).doit()
        value = value.subs(point) if _has(value, BOUND) else value.xreplace(point)
        if value.is_Rational:
            return value
        if digits > LARGEST_IRRATIONAL:
            return None
        precision = PRECISION + 2 * digits
        value = value.evalf(precision, maxn=2 * precision)
    except Exception:  # sympy raises many kinds
        return None
    return value if value.is_number and value.is_finite and not value.free_symbols else None
