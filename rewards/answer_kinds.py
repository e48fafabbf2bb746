r"""The reading of an answer as a value of some kind, by how it is written.

`read_answer` reads gold answers and the answers of completions alike, so that a gold answer that is repeated word for
word is read as the same value.
"""

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from tokenshift.rewards.answer_names import names_a_value
from tokenshift.rewards.answer_place import answer_in
from tokenshift.rewards.answer_values import (
    LONGEST_PROSE,
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
)
from tokenshift.rewards.dates import read_date, read_time
from tokenshift.rewards.spelling import spelled, without_spaces
from tokenshift.rewards.units import AFTER, LONGEST, Unit, says_no_quantity, split_unit
from tokenshift.rewards.written_numbers import WrittenNumber, read_number

LONGEST_ANSWER = 5000  # characters; a longer text is only equal to itself
LONGEST_COMPOUND = 100  # characters of an amount in several units
DEEPEST = 12  # brackets within brackets


MATRIX = re.compile(
    r"(-?)\\begin\{([pbvBV]?)(?:small)?(?:matrix|array)\}(?:\{[lcr| ]*\})?(.*)"
    r"\\end\{[pbvBV]?(?:small)?(?:matrix|array)\}"
)
MODULO = re.compile(
    r"(?:[A-Za-z]\w*\s*(?:\\equiv|=)\s*)?(?P<value>[^=]*?)\s*(?:\\pmod|\(\s*(?:\\text\s*\{\s*)?\\?[bp]?mod)\}?"
    r"\s*\{?\s*(?P<modulus>\d+)\s*\}?\s*\)?"
)
BASE = re.compile(
    r"([-+]?)(?:\\text\s*\{)?\(?([0-9A-Z]+)\)?\}?\s*_\s*\{?\s*(?:\\text\s*\{)?\s*(\d{1,2}|[a-z]+)\s*\}?\}?"
)
BASE_WORDS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
BASE_WORDS |= {"twelve": 12, "sixteen": 16}
COMPOUND_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(\\text\s*\{[^{}]*\}|[a-zA-Z]+)")
COMPOUND = re.compile(rf"{COMPOUND_PART.pattern}(?:\s*(?:,|and)?\s*{COMPOUND_PART.pattern})+")
RATIO = re.compile(r"\d+(?:\.\d+)?(?:\s*:\s*\d+(?:\.\d+)?)+")
OUT_OF = re.compile(r"(\d+)(?:\s|\\text\s*\{)*\s*out of\s*\}?\s*(\d+)\s*\}?")
RATIO_WORD = re.compile(r"(?<=\d)\s*(?:\\text\s*\{\s*to\s*\}|\sto\s)\s*(?=\d)")
RELATION_COMMAND = (
    r"\\(?:not|to|gets|cup|cap|ne|le|ge|ll|gg|in|ni|notin|mid|nmid|times|cdot|div|circ|land|lor|wedge|vee|iff|implies"
    r"|setminus|perp|parallel|sim|simeq|cong|approx|equiv|propto|oplus|otimes|bullet|subset(?:eq)?|supset(?:eq)?"
    r"|prec|succ|mapsto|[A-Za-z]*(?:arrow|Arrow))(?![a-zA-Z])"
)
REJECTED = (
    r"(?:is|are|was|seems|looks)\s+(?:not|never|false|wrong|incorrect|impossible|excluded|eliminated|ruled|out|bad)\b"
    r"|isn't|cannot|can't|fails|doesn't|does\s+not|implies"
)
NO_CHOICE = rf"[<>=]|{RELATION_COMMAND}|(?:\\text\s*\{{\s*)?(?:{REJECTED})"
"""Text behind letters that makes them points, sets or statements, and no choice with its content."""
NO_CONTENT = rf"(?!\s*(?:{NO_CHOICE}|[-+^_,/&|(]|\\(?:pm|mp)(?![a-zA-Z])|\\&|[A-Z]\s*$|.*\\text\s*\{{\s*[A-Z]\s*\}}))"
CHOICE = re.compile(r"\(([A-Ja-j])\)|([A-J])(?:[.:)])?")
CHOICE_WITH_CONTENT = re.compile(rf"(?:\(([A-J])\)|([A-J])(?:\)|[.:](?=\s)))\s*{NO_CONTENT}([^(]+)")
LETTERED_CHOICE = re.compile(
    rf"\\text\s*\{{\s*(?:\(\s*([A-J])\s*\)[.:]?|([A-J])[.:)])\s*\}}\s*[.:]?\s*(?!{NO_CHOICE})(.+)"
)
"""A choice whose letter is set apart from its content, as in AMC: `\\textbf{(D)}\\ x+1`."""
UPRIGHT_CHOICE = re.compile(rf"\\text\s*\{{\s*([A-J])\s*\}}\s*{NO_CONTENT}([^(]+)")
WORD = re.compile(r"[^\W\d_]+(?:['’.\-][^\W\d_]+)*\.?")
SHORT_WORDS = frozenset(
    [
        "yes",
        "no",
        "odd",
        "even",
        "true",
        "false",
        "none",
        "all",
        "one",
        "two",
        "six",
        "ten",
        "red",
        "blue",
        "his",
        "her",
        "up",
        "down",
        "left",
        "dne",
        "day",
        "he",
        "she",
    ]
)
LETTERED_TEXT = re.compile(r"\\text\s*\{([^{}\\]*)\}")
AND_OR = re.compile(r"\s*(?:,|;)?\s*(?:\\text\s*\{\s*(?:,\s*)?(and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))\s*")
NOUNS = re.compile(r"\d+(?:\s|\\text\s*\{)*\s[a-z]{3,}(?: [a-z]{3,})? and [a-z]{3,}(?: [a-z]{3,})?\s*\}?")
MIXED_AMOUNT = re.compile(r"(\d+) and (?=\d+\s*/\s*\d+ [a-z]{3,})")
"""The whole part of a mixed number before a unit: `2 and 1/2 hours`. Without a unit, `2 and 1/2` is a list."""
SIDES = re.compile(r"\d+(?:\.\d+)?(?: ?[a-z]+)?(?: by \d+(?:\.\d+)?(?: ?[a-z]+)?)+")
"""Lengths of sides: `3 cm by 4 cm`."""
EITHER = re.compile(r"(?<![A-Za-z])or(?![A-Za-z])")
EQUATION = re.compile(
    r"(?!sum|gcd|lcm|max|min|age|day)[a-z]{2,3}|[a-z](?: [a-z])+|(?:\\?\|)[a-z](?:\\?\|)|[a-z]\s*/\s*[a-z]"
    r"|\\d?frac\s*\{(?!d[a-z]\})[a-z]+\}\s*\{[a-z]+\}"
    r"|\\(?:sqrt|sin|cos|tan|cot|sec|csc|log|ln|exp)(?![a-z])[\s{(]*(?:[a-z]|\\theta|\\alpha|\\beta)[\s})]*"
)
"""A middle part of a chain of equations that is in a variable, such as `xy` in `2z = xy = 10`."""
EQUALS = re.compile(r"(?<![<>!:\\])=(?!=)")
INEQUALITY = re.compile(r"<=|>=|[<>]|\\[lg]e(?![a-zA-Z])")
RELATION = re.compile(r"=|[<>]|\\[lgn]e(?![a-zA-Z])")
VARIABLE = re.compile(r"[a-zA-Z](?:_(?:\w|\{\w+\}))?|\\(?:alpha|beta|gamma|theta|lambda|mu|phi|omega)")
INFINITY = "\\infty"
MEMBER = re.compile(r"\s*[a-zA-Z]\s*\\in\s+(?=[\\(\[])|\s*[a-zA-Z]\s*\\in(?=[\\(\[])")
PLUS_MINUS = re.compile(r"\\pm(?![a-zA-Z])\s*")
LETTER_UNIT = re.compile(r"(?<=[\d)}\]])\s+[A-Za-z](?:\s*\^\s*\{?\d\}?)?$")
"""A letter that may be a unit or a variable: `2 m`, and neither `2 \\text{ m}` nor `2 kg`."""
DIGIT_SUBSCRIPT = re.compile(r"\d\)?\}?\s*_")
SEVERAL_POINTS = re.compile(r"\d\.\d+\.\d")
PAIRS = {"(": ")", "[": "]"}


def read_answer(answer: str, decimal_comma: bool = False) -> Value:
    r"""The value of an answer: a gold answer, or the answer of a completion.

    Args:
        answer: its text; where a `\boxed{}` or `####` is in it, what that holds.
        decimal_comma: whether `1,5` is one and a half.
    """
    if "\\boxed" in answer or "\\fbox" in answer or "####" in answer:
        answer = answer_in(answer) or answer
    if len(answer) > LONGEST_ANSWER:
        return Formula(answer)
    if answer.strip()[:1] == "[" and answer.strip()[-1:] == "]" and '"' in answer and (items := _from_json(answer)):
        values = [read_answer(item, decimal_comma) for item in items]
        return values[0] if len(values) == 1 else Listed("; ".join(value.text for value in values), tuple(values))
    text = spelled(answer, decimal_comma)
    return _read(text, DEEPEST)


def _from_json(answer: str) -> list[str]:
    """The items of a list of texts and numbers in JSON, as data sets of several answers hold it; else none."""
    try:
        items = json.loads(answer)
    except ValueError:
        return []
    plain = isinstance(items, list) and all(isinstance(item, str | int | float) for item in items)
    return [str(item) for item in items] if plain else []


def _read(text: str, depth: int) -> Value:
    number = read_number(text)
    if number is not None:
        return Number(text, number)
    if depth == 0:
        return Formula(text)
    for read in (
        _matrix,
        _dated,
        _modulo,
        _based,
        _ratio,
        _several,
        _choice,
        _bracketed,
        _bounded,
        _named,
        _words,
        _amount,
    ):
        value = read(text, depth)
        if value is not None:
            return value
    return Formula(text)


def _matrix(text: str, depth: int) -> Value | None:
    match = MATRIX.fullmatch(text) if "\\begin" in text and text.count("\\begin") == 1 else None
    if match is None or match.group(1):
        return None
    rows = [row for row in re.split(r"\\\\|\\cr(?![a-z])", match.group(3)) if row.strip()]
    cells = tuple(
        tuple(_read(cell.replace("\\hline", "").strip(), depth - 1) for cell in row.split("&")) for row in rows
    )
    return Matrix(text, cells, match.group(2) in ("v", "V"))


def _dated(text: str, depth: int) -> Value | None:
    if (date := read_date(text)) is not None:
        return Dated(text, date)
    if (time := read_time(text)) is not None:
        return Timed(text, time)
    return None


def _modulo(text: str, depth: int) -> Value | None:
    """A residue: the value with the modulus as its unit, which may be left out and must be right."""
    match = MODULO.fullmatch(text) if "mod" in text else None
    if match is None:
        return None
    value = _read(match["value"].strip(), depth - 1)
    return Amount(text, value, Unit(((f"modulo {match['modulus']}", 1),))) if isinstance(value, Number) else None


def _based(text: str, depth: int) -> Value | None:
    match = BASE.fullmatch(text) if "_" in text else None
    if match is None:
        return None
    sign, digits, written = match.groups()
    base = int(written) if written.isdecimal() else BASE_WORDS.get(written, 0)
    if not 2 <= base <= 36 or not any(character.isdecimal() for character in digits + "0" * (len(digits) > 1)):
        return None
    if any(int(digit, 36) >= base for digit in digits):
        return None
    return Based(text, sign.strip("+") + digits.lstrip("0"), base)


def _ratio(text: str, depth: int) -> Value | None:
    if (match := OUT_OF.fullmatch(text)) and int(match.group(2)):
        return Number(text, WrittenNumber(Fraction(int(match.group(1)), int(match.group(2)))))
    text = RATIO_WORD.sub(":", text)
    if ":" not in text or not RATIO.fullmatch(text):
        return None
    return Proportion(text, tuple(Fraction(term.strip()) for term in text.split(":")))


def _choice(text: str, depth: int) -> Value | None:
    if match := CHOICE.fullmatch(LETTERED_TEXT.sub(r"\1", text).replace(" ", "")):
        return Choice(text, (match.group(1) or match.group(2)).upper())
    for choice in (LETTERED_CHOICE, UPRIGHT_CHOICE, CHOICE_WITH_CONTENT):
        if len(text) < 200 and (match := choice.fullmatch(text)):
            letter, content = (group for group in match.groups() if group)
            return Choice(text, letter, content.strip())
    return None


def _several(text: str, depth: int) -> Value | None:
    """A list: commas, semicolons, "and" or "or" outside of brackets; or a plus-minus sign, which is two values."""
    if NOUNS.fullmatch(text):
        return None  # "7 boys and girls"
    if mixed := MIXED_AMOUNT.match(text):
        return _read(f"{mixed.group(1)} {text[mixed.end() :]}", depth - 1)
    if "by" in text and SIDES.fullmatch(sides := " ".join(LETTERED_TEXT.sub(r" \1 ", text).split())):
        return Listed(text, tuple(_read(side, depth - 1) for side in sides.split(" by ")), "()")
    if " and " in text and "," not in text and (compound := _compound(text)) is not None:
        return compound
    joined = AND_OR.sub(", ", text) if AND_OR.search(text) else text
    if not any(_split(joined, ",;")):
        return None  # separators alone
    groups = _split(joined, ";")
    if len(groups) > 1 and len(_split(joined, ",")) > 1:
        return _flat(text, [_as_tuple(_read(group, depth - 1)) for group in groups if group])
    parts = _split(joined, ",;")
    if len(parts) > 1:
        items = [_read(spelled(part), depth - 1) for part in parts if part]
        named = [item for item in items if isinstance(item, Named)]
        if len(items) > 1 and all(isinstance(item, Words) and len(item.words) > 1 for item in items):
            return None  # a sentence
        if len(named) == 1 and isinstance(items[0], Named):
            items[0] = items[0].value  # "x = 1, 2" is two values of x
            return Named(text, named[0].name, _flat(text, items))
        return _flat(text, items)
    if PLUS_MINUS.search(text) and len(PLUS_MINUS.findall(text)) == 1 and "\\mp" not in text and "=" not in text:
        return _flat(text, [_read(PLUS_MINUS.sub(sign, text), depth - 1) for sign in ("+", "-")])
    return None


def _as_tuple(value: Value) -> Value:
    """Values with different names as a tuple, as in `p=5, q=2; p=7, q=2`."""
    if isinstance(value, Listed) and not value.brackets and all(isinstance(item, Named) for item in value.items):
        return replace(value, brackets="()")
    return value


def _flat(text: str, items: Sequence[Value]) -> Value:
    """A list, with the values of lists in it as its own."""
    values: list[Value] = []
    for item in items:
        values.extend(item.items if isinstance(item, Listed) and not item.brackets else (item,))
    if len(values) == 1:
        return values[0]
    names = {value.name if isinstance(value, Named) else "" for value in values}
    inner = tuple(value.value for value in values if isinstance(value, Named))
    if len(names) > 1 or len(inner) < len(values):
        return Listed(text, tuple(values))
    if all(isinstance(value, Listed) and value.ordered for value in inner):  # "x < 0 or x > 5"
        return Named(text, names.pop(), United(text, inner)) if EITHER.search(text) else Listed(text, tuple(values))
    return Named(text, names.pop(), _flat(text, inner))


def _bracketed(text: str, depth: int) -> Value | None:
    parts = _split(text, "", r"\cup")
    if len(parts) > 1:
        return United(text, tuple(_read(part, depth - 1) for part in parts))
    if text in ("\\emptyset", "\\{\\}"):
        return Listed(text, (), SET)
    if member := MEMBER.match(text):
        return _read(text[member.end() :], depth - 1)
    if text.startswith("\\{") and text.endswith("\\}") and _closes_at_end(text, 2):
        items = [_read(part, depth - 1) for part in _split(text[2:-2].strip(), ",;")]
        if len(items) == 1 and isinstance(items[0], Listed) and not items[0].brackets:
            items = list(items[0].items)  # "2 \\pm 1"
        if any("\\mid" in item.text or "|" in item.text or ":" in item.text for item in items):
            return None
        return Listed(text, tuple(items), SET)
    if text.startswith("\\langle") and text.endswith("\\rangle"):
        return _read("(" + text[7:-7].strip() + ")", depth - 1)
    if text[:1] in PAIRS and text[-1:] in ")]" and len(text) > 2 and _closes_at_end(text, 1):
        parts = _split(text[1:-1].strip(), ",;")
        if len(parts) == 1:
            same = PAIRS[text[0]] == text[-1]
            return _read(parts[0], depth - 1) if same else None
        return Listed(text, tuple(_read(part, depth - 1) for part in parts), text[0] + text[-1])
    return None


def _bounded(text: str, depth: int) -> Value | None:
    """An inequality that bounds one variable, as the interval of that variable."""
    signs = list(INEQUALITY.finditer(text))
    if not 1 <= len(signs) <= 2:
        return None
    first, *middle, last = [part.strip() for part in INEQUALITY.split(text)]
    downward = ["<" not in sign.group() and "\\le" not in sign.group() for sign in signs]
    strict = [sign.group().strip() in "<>" for sign in signs]
    if len(set(downward)) > 1 or not (first and last):
        return None
    variable = middle[0] if middle else first if VARIABLE.fullmatch(first) else last
    if not VARIABLE.fullmatch(variable):
        return None
    if not middle and VARIABLE.fullmatch(first) and VARIABLE.fullmatch(last):
        return None  # a relation between two variables bounds neither
    if middle:
        (low, low_open), (high, high_open) = (first, strict[0]), (last, strict[1])
        if downward[0]:
            (low, low_open), (high, high_open) = (high, high_open), (low, low_open)
    elif (variable == first) == downward[0]:
        low, low_open, high, high_open = (last if variable == first else first), strict[0], INFINITY, True
    else:
        low, low_open, high, high_open = "-" + INFINITY, True, (last if variable == first else first), strict[0]
    brackets = "[("[low_open] + "])"[high_open]
    interval = brackets[0] + f"{low},{high}" + brackets[1]
    items = (_read(low, depth - 1), _read(high, depth - 1))
    if any(isinstance(item, Listed | Named) for item in items):
        return None
    return Named(text, variable, Listed(interval, items, brackets))


def _named(text: str, depth: int) -> Value | None:
    parts = [part.strip() for part in EQUALS.split(text)]
    if len(parts) < 2 or not all(parts) or "\\begin" in text:
        return None
    if any(EQUATION.fullmatch(part) for part in parts[1:-1]):
        return None
    if names_a_value(parts[0]):
        value = _read(parts[-1], depth - 1)
        if len(parts) > 2 and isinstance(value, Formula):
            return None
        return Named(text, without_spaces(LETTERED_TEXT.sub(r"\1", parts[0])), value)
    if len(parts) == 2 and names_a_value(parts[1]):
        return Named(text, without_spaces(LETTERED_TEXT.sub(r"\1", parts[1])), _read(parts[0], depth - 1))
    values = [_read(part, depth - 1) for part in parts]
    numbers = [value for value in values if isinstance(value, Number)]
    if len(numbers) == len(values) and all(value.number.value == numbers[0].number.value for value in numbers):
        return numbers[0]  # "1/2 = 0.5"
    return None


def _words(text: str, depth: int) -> Value | None:
    plain = LETTERED_TEXT.sub(r"\1", text).strip(" .!?\"'")
    if "\\" in plain or not plain or not plain[0].isalpha():
        return None
    words = [word for word in plain.replace(",", " ").replace("-", " ").split() if word]
    if not all(WORD.fullmatch(word.strip("()\"'!?:")) for word in words):
        # prose with a formula or number in it is prose all the same
        letters = [word for word in words if WORD.fullmatch(word) and len(word) > 2]
        return Words(text, tuple(words)) if len(letters) > LONGEST_PROSE else None
    if len(words) == 1 and "\\text" not in text:
        word = words[0]
        if len(word) == 1 or (word.islower() and len(word) < 4 and word not in SHORT_WORDS):
            return None  # a variable, or a product of variables
    if all(len(word) == 1 for word in words):
        return None
    return Words(text, tuple(word.strip("().\"'!?:").casefold() if not word.isupper() else word for word in words))


def _compound(text: str) -> Value | None:
    """The sum of amounts of one kind: `1 h 30 min`, `5 feet 6 inches`."""
    parts = COMPOUND_PART.findall(text) if len(text) <= LONGEST_COMPOUND else []
    if not 2 <= len(parts) <= 4 or not COMPOUND.fullmatch(text):
        return None
    amounts = [_amount(f"{number} {unit}", 2) for number, unit in parts]
    sizes = [amount.unit.size for amount in amounts if isinstance(amount, Amount)]
    if " and " in text and not all(size > smaller for size, smaller in itertools.pairwise(sizes)):
        return None  # "5 cm and 3 cm" is a list
    total = Fraction(0)
    for amount in amounts:
        if not (isinstance(amount, Amount) and isinstance(amount.value, Number)):
            return None
        if not isinstance(amounts[0], Amount) or amount.unit.kinds != amounts[0].unit.kinds:
            return None
        total += amount.value.number.value * amount.unit.size
    assert isinstance(amounts[0], Amount)
    written = f"\\frac{{{total.numerator}}}{{{total.denominator}}}"
    return Amount(text, Number(written, WrittenNumber(total)), replace(amounts[0].unit, size=Fraction(1)))


def _amount(text: str, depth: int) -> Value | None:
    if (compound := _compound(text)) is not None:
        return compound
    split = split_unit(text)
    if split is None:
        return Unread(text) if says_no_quantity(text) or SEVERAL_POINTS.search(text) or _ends_in_words(text) else None
    written, unit = split
    value = _read(written, depth - 1)
    is_letter = LETTER_UNIT.search(text) is not None
    if isinstance(value, Amount) and value.unit.kinds == unit.kinds and not isinstance(value.value, Amount):
        return None
    if isinstance(value, Number | Formula | Based):
        return Amount(text, value, unit, is_letter)
    return None


def _ends_in_words(text: str) -> bool:
    match = AFTER.fullmatch(text) if len(text) <= LONGEST else None
    return match is not None and "\\text" in match["unit"]


def _split(text: str, separators: str, command: str | None = None) -> list[str]:
    """The parts of a text between separators, or a command, that stand outside of all brackets."""
    if not (any(separator in text for separator in separators) or (command and command in text)):
        return [text]
    parts: list[str] = []
    level = start = position = 0
    while position < len(text):
        character = text[position]
        if command and level == 0 and text.startswith(command, position):
            parts.append(text[start:position])
            position = start = position + len(command)
            continue
        if character == "\\" and text[position + 1 : position + 2] not in ("{", "}"):
            position += 2
            continue
        if character in "([{":
            level += 1
        elif character in ")]}":
            level -= 1
        elif level == 0 and character in separators:
            parts.append(text[start:position])
            start = position + 1
        position += 1
    parts.append(text[start:])
    return [part.strip() for part in parts]


def _closes_at_end(text: str, width: int) -> bool:
    """Whether the bracket that opens a text is closed by the one that ends it."""
    level = 0
    for position, character in enumerate(text):
        if character in "([{":
            level += 1
        elif character in ")]}":
            level -= 1
            if level == 0:
                return position == len(text) - 1
    return False
