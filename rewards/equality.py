r"""Whether an answer equals the gold answer, where the kind of the gold answer decides.

Equal text comes first, so that a gold answer that is repeated is right. Then numbers are compared exactly, and lists,
tuples, intervals, amounts, dates and so on by their parts. Only formulas go to math-verify, whose acceptances are
checked (`tokenshift.rewards.formulas`).
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from tokenshift.rewards.answer_kinds import DIGIT_SUBSCRIPT, INEQUALITY, RELATION, read_answer
from tokenshift.rewards.answer_values import (
    SET,
    Amount,
    Based,
    Choice,
    Dated,
    Formula,
    Listed,
    Matrix,
    Named,
    Number,
    Proportion,
    Timed,
    United,
    Unread,
    Value,
    Words,
    by_name,
)
from tokenshift.rewards.dates import same_date, same_time
from tokenshift.rewards.formulas import same_formula
from tokenshift.rewards.matching import same_in_any_order
from tokenshift.rewards.spelling import without_spaces
from tokenshift.rewards.units import same_noun
from tokenshift.rewards.written_numbers import WrittenNumber, same_number

CAPITALS = re.compile(r"(?<![A-Za-z])[A-Z]{2,}(?![a-z])")
CHOSEN = re.compile(r"([CP])\((\d+),\s*(\d+)\)")
ANSWERS = ("YES", "NO")
REALS = ("real", "numbers")
ALL_REALS = (("all", "real", "numbers"), ("all", "reals"), ("all", "real", "values"), ("real", "numbers"), ("reals",))
RESIDUE = re.compile(r"modulo (\d+)")
MOST_ITEMS = 200  # of a list, a tuple or a matrix


def same_answer(gold: Value, answer: Value) -> bool:
    """Whether an answer equals the gold answer. May never return."""
    if not answer.text:
        return False
    if gold.text == answer.text or without_spaces(gold.text) == without_spaces(answer.text):
        return True
    if isinstance(gold, Unread) or isinstance(answer, Unread):
        return False
    if isinstance(gold, Choice) and gold.content and not isinstance(answer, Choice):
        return _same_choice(gold, answer) or same_answer(read_answer(gold.content), answer)
    if isinstance(answer, Choice) and answer.content and not isinstance(gold, Choice):
        return same_answer(gold, read_answer(answer.content))
    if isinstance(gold, Named) or isinstance(answer, Named):
        return _same_named(gold, answer)
    if isinstance(gold, Amount) or isinstance(answer, Amount):
        return _same_amount(gold, answer)
    if isinstance(gold, Listed) or isinstance(answer, Listed):
        return _same_listed(gold, answer)
    if isinstance(gold, Number) and isinstance(answer, Number):
        return same_number(gold.number, answer.number)
    if isinstance(gold, Words) or isinstance(answer, Words):
        return _same_words(gold, answer)
    if isinstance(gold, Choice) or isinstance(answer, Choice):
        return _same_choice(gold, answer)
    if isinstance(gold, Proportion | Timed) and isinstance(answer, Proportion | Timed):
        return _same_ratio(gold, answer)
    if {type(gold), type(answer)} in ({Proportion, Number}, {Timed, Number}):
        return _same_ratio(gold, answer)
    if isinstance(gold, Dated) and isinstance(answer, Dated):
        return same_date(gold.date, answer.date)
    if isinstance(gold, Based) and isinstance(answer, Based):
        return (gold.base, gold.digits) == (answer.base, answer.digits)
    if isinstance(gold, Matrix) and isinstance(answer, Matrix):
        return gold.determinant == answer.determinant and _same_rows(gold.rows, answer.rows)
    if (
        isinstance(gold, United)
        and isinstance(answer, United)
        and same_in_any_order(gold.parts, answer.parts, _same_item)
    ):
        return True
    if isinstance(gold, Number | Formula | United | Matrix) and isinstance(answer, Number | Formula | United | Matrix):
        return _same_formula(gold, answer)
    return False


def _same_formula(gold: Value, answer: Value) -> bool:
    """Whether math-verify takes two formulas for equal; one with a number in another base is equal to itself alone."""
    if DIGIT_SUBSCRIPT.search(gold.text) or DIGIT_SUBSCRIPT.search(answer.text):
        return False
    if sorted(CAPITALS.findall(gold.text)) != sorted(CAPITALS.findall(answer.text)):
        return False  # math-verify takes the angle ABC for a product
    if gold.text.count("'") != answer.text.count("'"):
        return False  # math-verify leaves the prime of a derivative out
    return same_formula(_as_formula(gold), _as_formula(answer), isinstance(gold, United | Listed))


def _as_formula(value: Value) -> str:
    """The text of a value for math-verify, which takes `5 1/2` for 3 and `0x1F` for a product."""
    if isinstance(value, Number) and value.number.digits is None and len(value.text) < 20:
        numerator, denominator = value.number.value.as_integer_ratio()
        return str(numerator) if denominator == 1 else f"\\frac{{{numerator}}}{{{denominator}}}"
    if match := CHOSEN.fullmatch(value.text):
        kind, count, taken = match.group(1), int(match.group(2)), int(match.group(3))
        return f"\\binom{{{count}}}{{{taken}}}" if kind == "C" else f"\\frac{{{count}!}}{{({count}-{taken})!}}"
    return value.text


def _same_named(gold: Value, answer: Value) -> bool:
    if (_bounds(gold) and _is_plain_list(answer)) or (_is_plain_list(gold) and _bounds(answer)):
        return False
    if isinstance(gold, Named) and isinstance(answer, Named):
        if gold.name == answer.name and same_answer(gold.value, answer.value):
            return True
        if gold.name == answer.name and isinstance(gold.value, Number) and isinstance(answer.value, Number):
            return False
        if _bounds(gold) and _bounds(answer):
            return gold.name != answer.name and _same_formula(Formula(gold.text), Formula(answer.text))
        if isinstance(gold.value, Number | Formula) and isinstance(answer.value, Number | Formula):
            return _same_formula(Formula(gold.text), Formula(answer.text))
        return False
    if isinstance(answer, Named):
        if isinstance(gold, Formula) and RELATION.search(gold.text):
            return _same_formula(gold, Formula(answer.text))
        if isinstance(gold, Listed) and isinstance(by_name(answer), Listed):
            return same_answer(gold, by_name(answer))
        return same_answer(gold, answer.value)
    assert isinstance(gold, Named)
    if isinstance(answer, Formula) and RELATION.search(answer.text):
        return _same_formula(Formula(gold.text), answer)
    if isinstance(answer, Listed) and any(isinstance(item, Named) for item in answer.items):
        return isinstance(by_name(gold), Listed) and same_answer(by_name(gold), answer)
    return same_answer(gold.value, answer)


def _bounds(value: Value) -> bool:
    """Whether a value is the interval of an inequality."""
    return isinstance(value, Named) and INEQUALITY.search(value.text) is not None


def _is_plain_list(value: Value) -> bool:
    inner = value.value if isinstance(value, Named) else value
    return isinstance(inner, Listed) and not inner.ordered


def _same_amount(gold: Value, answer: Value) -> bool:
    """A unit that only one of them has is understood, but for a percent sign where it would change the value."""
    if isinstance(gold, Amount) and isinstance(answer, Amount):
        if gold.unit == answer.unit and (modulus := RESIDUE.fullmatch(gold.unit.kinds[0][0])):
            return _same_residue(gold.value, answer.value, int(modulus.group(1)))
        if gold.unit == answer.unit or gold.unit.is_generic or answer.unit.is_generic:
            exponents = [[exponent for _, exponent in unit.kinds] for unit in (gold.unit, answer.unit)]
            return exponents[0] == exponents[1] and same_answer(gold.value, answer.value)
        if gold.unit.kinds == answer.unit.kinds:
            sizes = (gold.unit.size, answer.unit.size)
            return _same_multiple(gold.value, sizes[0], answer.value, sizes[1])
        return same_noun(gold.unit, answer.unit) and same_answer(gold.value, answer.value)
    amount, bare = (gold, answer) if isinstance(gold, Amount) else (answer, gold)
    assert isinstance(amount, Amount)
    if amount.is_product and isinstance(bare, Formula):
        return _same_formula(Formula(gold.text), Formula(answer.text))  # `2 m` and `2m`
    if amount is gold and amount.is_product and isinstance(bare, Number):
        return False
    if isinstance(bare, Listed | Words | Choice | Dated | Timed | Based | Matrix | United):
        return False
    if amount.unit.is_percent:
        return _same_percent(amount, bare)
    return same_answer(
        gold.value if isinstance(gold, Amount) else gold, answer.value if isinstance(answer, Amount) else answer
    )


def _same_residue(gold: Value, answer: Value, modulus: int) -> bool:
    """`n \\equiv 3 \\pmod 7` is `n \\equiv 10 \\pmod 7`."""
    if isinstance(gold, Number) and isinstance(answer, Number) and modulus:
        return (gold.number.value - answer.number.value) % modulus == 0
    return False


def _same_multiple(gold: Value, gold_size: Fraction, answer: Value, size: Fraction) -> bool:
    if isinstance(gold, Number) and isinstance(answer, Number):
        return gold.number.value * gold_size == answer.number.value * size
    return False


def _same_percent(amount: Amount, bare: Value) -> bool:
    """`50\\%` is 0.5 and 1/2; it is 50 too, since the sign is often left out of numbers above 1."""
    if not isinstance(amount.value, Number):
        return same_answer(amount.value, bare)
    number = amount.value.number
    if not isinstance(bare, Number):
        hundredth = Formula(f"\\frac{{{number.value.numerator}}}{{{number.value.denominator * 100}}}")
        return isinstance(bare, Formula) and _same_formula(hundredth, bare)
    if abs(number.value) > 1 and same_number(number, bare.number):
        return True
    return same_number(WrittenNumber(number.value / 100, number.digits, number.places + 2), bare.number)


def _same_listed(gold: Value, answer: Value) -> bool:
    """Lists and sets in any order, tuples in order; the gold answer decides which it is."""
    if not isinstance(answer, Listed):
        assert isinstance(gold, Listed)
        if len(gold.items) == 1:
            return same_answer(gold.items[0], answer)
        if isinstance(answer, Formula | United):
            return _same_interval_or_formula(gold, answer)
        return False
    if not isinstance(gold, Listed):
        if answer.brackets in ("", SET) and _says_one_thing(gold, answer.items):
            return True
        return isinstance(gold, Formula | United) and _same_interval_or_formula(gold, answer)
    if max(len(gold.items), len(answer.items)) > MOST_ITEMS:
        return False
    if SET in (gold.brackets, answer.brackets) and not (gold.ordered or answer.ordered):
        golds = _distinct(gold.items) if gold.brackets == SET else list(gold.items)  # "3, 3" asks for two values
        answers = _distinct(answer.items)
        return same_in_any_order(golds, answers, _same_item)
    if len(gold.items) != len(answer.items) or SET in (gold.brackets, answer.brackets):
        return False
    if not gold.ordered and not answer.ordered:
        return _same_in_names(gold.items, answer.items)
    brackets = {gold.brackets, answer.brackets} - {""}
    if len(gold.items) == 2 and (len(brackets) > 1 or (brackets != {"()"} and "" in (gold.brackets, answer.brackets))):
        return False
    return _same_in_order(gold.items, answer.items)


def _says_one_thing(gold: Value, items: Sequence[Value]) -> bool:
    """Whether values in different writing all equal one (`x+1 or 1+x`)."""
    various = 1 < len({item.text for item in items}) <= MOST_ITEMS
    return various and all(same_answer(gold, item) for item in items)


def _same_interval_or_formula(gold: Value, answer: Value) -> bool:
    """A list against something that only math-verify may know to be one; never where units or text are in it."""
    for value in (gold, answer):
        if isinstance(value, Listed) and any(not isinstance(item, Number | Formula) for item in value.items):
            return False
    bounded = any(isinstance(value, Listed) and value.brackets in ("()", "[]", "(]", "[)") for value in (gold, answer))
    if isinstance(gold, Listed) and RELATION.search(answer.text):
        is_interval = gold.brackets in ("[]", "(]", "[)") or "\\infty" in gold.text
        return bounded and is_interval and same_formula(gold.text, answer.text, True)
    return _same_formula(gold, answer)


def _same_in_names(golds: Sequence[Value], answers: Sequence[Value]) -> bool:
    """Lists, where values with different names stay with their names, and in the order of writing without them."""
    names = [item.name for item in golds if isinstance(item, Named)]
    if len(set(names)) > 1 and not any(isinstance(item, Named) for item in answers):
        return _same_in_order(golds, answers)
    others = [item.name for item in answers if isinstance(item, Named)]
    if len(set(others)) > 1 and not names:
        return _same_in_order(golds, answers)
    return same_in_any_order(golds, answers, _same_item)


def _same_in_order(golds: Sequence[Value], answers: Sequence[Value]) -> bool:
    return len(golds) == len(answers) and all(map(same_answer, golds, answers))


def _same_item(gold: Value, answer: Value) -> bool:
    return _as_deep(gold, answer) and same_answer(gold, answer)


def _as_deep(gold: Value, answer: Value) -> bool:
    """Whether neither or both are sets: in a set, `\\{1\\}` is not 1."""
    sets = [isinstance(value, Listed) and value.brackets == SET for value in (gold, answer)]
    return sets[0] == sets[1] or isinstance(gold if sets[1] else answer, Listed)


def _distinct(items: Sequence[Value]) -> list[Value]:
    distinct: list[Value] = []
    for item in items:
        if not any(same_answer(other, item) for other in distinct):
            distinct.append(item)
    return distinct


def _same_rows(rows: Sequence[Sequence[Value]], others: Sequence[Sequence[Value]]) -> bool:
    return len(rows) == len(others) and all(map(_same_in_order, rows, others))


def _same_words(gold: Value, answer: Value) -> bool:
    if isinstance(gold, Words) and isinstance(answer, Words):
        return _folded(gold) == _folded(answer)
    words, other = (gold, answer) if isinstance(gold, Words) else (answer, gold)
    assert isinstance(words, Words)
    if _folded(words) == REALS:
        return without_spaces(other.text) in ("\\mathbb{R}", "(-\\infty,\\infty)")
    return isinstance(other, Formula) and other.text.isalpha() and _folded(words) == (other.text,)


def _folded(words: Words) -> tuple[str, ...]:
    """Words without their case; up to three capitals, which name points or choices, keep it."""
    folded = [word if len(word) < 4 and word not in ANSWERS else word.casefold() for word in words.words]
    if folded[0] == "no" and len(folded) > 1:
        folded[-1] = folded[-1].removesuffix("s")  # "no solutions"
    return REALS if tuple(folded) in ALL_REALS else tuple(folded)


def _same_choice(gold: Value, answer: Value) -> bool:
    if isinstance(gold, Choice) and isinstance(answer, Choice):
        if gold.letter != answer.letter or not (gold.content and answer.content):
            return gold.letter == answer.letter
        return same_answer(read_answer(gold.content), read_answer(answer.content))
    choice, other = (gold, answer) if isinstance(gold, Choice) else (answer, gold)
    assert isinstance(choice, Choice)
    return other.text == choice.letter.lower() and choice.letter not in choice.text


def _same_ratio(gold: Value, answer: Value) -> bool:
    if isinstance(gold, Timed) and isinstance(answer, Timed) and same_time(gold.time, answer.time):
        return True
    terms = [_terms(value) for value in (gold, answer)]
    if not (terms[0] and terms[1]) or len(terms[0]) != len(terms[1]):
        return False
    (first, *firsts), (second, *seconds) = terms
    return all(one * second == other * first for one, other in zip(firsts, seconds, strict=True))


def _terms(value: Value) -> tuple[Fraction, ...]:
    if isinstance(value, Proportion):
        return value.terms
    if isinstance(value, Timed) and value.time.half is None and ":0" not in value.text:
        return (Fraction(value.time.hour), Fraction(value.time.minute))
    if isinstance(value, Number):
        return (Fraction(value.number.value.numerator), Fraction(value.number.value.denominator))
    return ()
