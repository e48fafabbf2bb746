r"""The exact value of a written number: `72`, `0.5`, `7/3`, `\frac{7}{3}`, `1 1/2`, `1.5 \times 10^{-3}`, `2^{10}`."""

import re
from dataclasses import dataclass
from fractions import Fraction

LARGEST_EXPONENT = 5000
LONGEST_NUMBER = 2000  # digits
ROUNDED_DIGITS = 6  # a decimal of fewer is taken as exact
PRINTED_DIGITS = 12  # a decimal of as many is taken as the printed value of a computation

DECIMAL = r"(?:\d+\.?\d*|\.\d+)"
SIGN = r"[-+]?\s?"
PLAIN = re.compile(rf"({SIGN}){DECIMAL}")
GROUP = r"([^{}]*(?:\{[^{}]*\}[^{}]*)*)"
DENOMINATOR = r"(?!.*(?:\\times|\\cdot|\d\s*[xX*]|\d\s+\d|\\text|\d\s*[a-z]{2}))[^/()]+"
"""The pattern of a denominator after a slash: not the `2 \\times 10^3` or `2 million` of which only the 2 divides."""
QUOTIENT = re.compile(rf"({SIGN})(?:\\frac\s*\{{{GROUP}\}}\s*\{{{GROUP}\}}|([^/()]+)/({DENOMINATOR}))")
FRACTION = re.compile(
    rf"({SIGN})(?:\\frac\s*\{{({SIGN}{DECIMAL})\}}\s*\{{({SIGN}{DECIMAL})\}}|({DECIMAL})\s*/\s*({DECIMAL}))"
)
SIGNED_FRACTION = re.compile(rf"({SIGN})\(\s*({SIGN}{DECIMAL})\s*/\s*({SIGN}{DECIMAL})\s*\)")
MIXED = re.compile(rf"({SIGN})(\d+)(?:\s*(?:\\frac\s*\{{(\d+)\}}\s*\{{(\d+)\}})|\s+(\d+)\s*/\s*(\d+))")
SCIENTIFIC = re.compile(
    rf"({SIGN})({DECIMAL})\s*(?:[eE]([-+]?\d+)|(?:\\times|\\cdot|[xX*])\s*10\s*\^\s*(?:\{{\s*([-+]?\d+)\s*\}}|(\d)))"
)
SCALED_FRACTION = re.compile(
    r"(?P<fraction>.+?)\s*(?:\\times|\\cdot)\s*10\s*\^\s*(?:\{\s*(?P<power>[-+]?\d+)\s*\}|(?P<digit>\d))"
)
POWER = re.compile(rf"({SIGN})(\d+)\s*\^\s*(?:\{{\s*([-+]?\d+)\s*\}}|(\d))")
PREFIXED = re.compile(r"0x[0-9a-fA-F]+|0b[01]+|0o[0-7]+")
REPEATING = re.compile(rf"({SIGN})(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\s*\{{?(\d+)\}}?|\((\d+)\))")
ORDINALS = (
    "fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth"
    " seventeenth eighteenth nineteenth"
)
ROUND_ORDINALS = "twentieth thirtieth fortieth fiftieth sixtieth seventieth eightieth ninetieth"
SCALES: dict[str, int | Fraction] = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "quadrillion": 10**15,
    "quintillion": 10**18,
    "sextillion": 10**21,
    "septillion": 10**24,
    "lakh": 10**5,
    "crore": 10**7,
    "tens": 10,
    "dozen": 12,
    "gross": 144,
    "half": Fraction(1, 2),
    "halve": Fraction(1, 2),
    "third": Fraction(1, 3),
    "quarter": Fraction(1, 4),
    "hundredth": Fraction(1, 100),
    "thousandth": Fraction(1, 1000),
    **dict.fromkeys(("ten thousandth", "ten-thousandth"), Fraction(1, 10**4)),
    **dict.fromkeys(("hundred thousandth", "hundred-thousandth"), Fraction(1, 10**5)),
    "trillionth": Fraction(1, 10**12),
    "millionth": Fraction(1, 10**6),
    "billionth": Fraction(1, 10**9),
    **{ordinal: Fraction(1, number) for number, ordinal in enumerate(ORDINALS.split(), start=4)},
    **{ordinal: Fraction(1, 10 * number) for number, ordinal in enumerate(ROUND_ORDINALS.split(), start=2)},
}
SCALED = re.compile(rf"(.+?)\s*(?:\\text\s*\{{\s*)?({'|'.join(SCALES)})s?(?:\s*\}})?")


@dataclass(frozen=True)
class WrittenNumber:
    """A number.

    Attributes:
        value: the exact value of what is written.
        digits: how many significant digits are written, where it is a decimal; None where it is exact.
        places: how many digits stand after the point of a decimal in plain or scientific writing, as a power of ten.
    """

    value: Fraction
    digits: int | None = None
    places: int = 0


def read_number(text: str) -> WrittenNumber | None:
    """The number that the whole text is; None where it is something else, or too long to be a number of an answer."""
    if len(text) > LONGEST_NUMBER or not any(character.isdecimal() for character in text[:40]):
        return None
    if PLAIN.fullmatch(text):
        return _decimal(text)
    if match := FRACTION.fullmatch(text) or SIGNED_FRACTION.fullmatch(text):
        sign, *parts = (group for group in match.groups() if group is not None)
        return _quotient(sign, *parts)
    if match := SCIENTIFIC.fullmatch(text):
        exponent = int(next(group for group in match.groups()[2:] if group is not None))
        return _scaled(match.group(1), match.group(2), exponent)
    if (match := SCALED_FRACTION.fullmatch(text)) and FRACTION.fullmatch(match["fraction"]):
        exponent, fraction = int(match["power"] or match["digit"]), read_number(match["fraction"])
        if fraction is None or abs(exponent) > LARGEST_EXPONENT:
            return None
        return WrittenNumber(fraction.value * Fraction(10) ** exponent)
    if match := MIXED.fullmatch(text):
        sign, whole, *parts = (group for group in match.groups() if group is not None)
        return _mixed(sign, whole, *parts)
    if match := POWER.fullmatch(text):
        return _power(match.group(1), match.group(2), int(match.group(3) or match.group(4)))
    if match := QUOTIENT.fullmatch(text):
        return _quotient_of_numbers(*(group for group in match.groups() if group is not None))
    if match := PREFIXED.fullmatch(text):
        return WrittenNumber(Fraction(int(text, 0)))
    if match := REPEATING.fullmatch(text):
        return _repeating(*(group for group in match.groups() if group is not None))
    if (match := SCALED.fullmatch(text)) and (number := read_number(match.group(1))):
        return WrittenNumber(number.value * SCALES[match.group(2)])
    return None


def _negative(sign: str) -> int:
    return -1 if sign.strip() == "-" else 1


def _decimal(text: str) -> WrittenNumber:
    text = text.replace(" ", "")
    value = Fraction(text.rstrip(".") if text.endswith(".") else text)
    fraction = text.partition(".")[2]
    if value.denominator == 1 and not fraction.strip("0"):
        return WrittenNumber(value)
    return WrittenNumber(value, len(text.strip("-+").replace(".", "").lstrip("0")), len(fraction))


def _quotient(sign: str, numerator: str, denominator: str) -> WrittenNumber | None:
    over, under = _decimal(numerator).value, _decimal(denominator).value
    return WrittenNumber(_negative(sign) * over / under) if under else None


def _quotient_of_numbers(sign: str, numerator: str, denominator: str) -> WrittenNumber | None:
    over, under = read_number(numerator.strip()), read_number(denominator.strip())
    if over is None or under is None or not under.value:
        return None
    return WrittenNumber(_negative(sign) * over.value / under.value)


def _mixed(sign: str, whole: str, numerator: str, denominator: str) -> WrittenNumber | None:
    over, under = int(numerator), int(denominator)
    return WrittenNumber(_negative(sign) * (int(whole) + Fraction(over, under))) if 0 < over < under else None


def _scaled(sign: str, decimal: str, exponent: int) -> WrittenNumber | None:
    if abs(exponent) > LARGEST_EXPONENT:
        return None
    number = _decimal(decimal)
    value = _negative(sign) * number.value * Fraction(10) ** exponent
    return WrittenNumber(value, number.digits, number.places - exponent)


def _power(sign: str, base: str, exponent: int) -> WrittenNumber | None:
    if abs(exponent) * len(base) > LARGEST_EXPONENT or (int(base) == 0 and exponent <= 0):
        return None
    return WrittenNumber(_negative(sign) * Fraction(int(base)) ** exponent)


def _repeating(sign: str, whole: str, fixed: str, repeated: str) -> WrittenNumber:
    value = Fraction(int(whole or 0)) + Fraction(int(fixed or 0), 10 ** len(fixed))
    value += Fraction(int(repeated), (10 ** len(repeated) - 1) * 10 ** len(fixed))
    return WrittenNumber(_negative(sign) * value)


def same_number(number: WrittenNumber, other: WrittenNumber) -> bool:
    """Whether two written numbers are the same.

    Two decimals are compared exactly, and so are two numbers without a point. A decimal of at least six significant
    digits is also the same as an exact number that rounds to it (`0.333333` and `1/3`), and as a decimal of twelve or
    more digits that does, which is the printed value of a computation.
    """
    if number.value == other.value:
        return True
    for rounded, precise in ((number, other), (other, number)):
        if rounded.digits is not None and rounded.digits >= ROUNDED_DIGITS:
            printed = precise.digits is not None and precise.digits >= PRINTED_DIGITS > rounded.digits
            exact = precise.digits is None and not _terminates(precise.value)
            if (printed or exact) and abs(rounded.value - precise.value) * 2 <= Fraction(10) ** -rounded.places:
                return True
    return False


def _terminates(value: Fraction) -> bool:
    """Whether a number has a finite decimal expansion, which then must be written out."""
    denominator = value.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator == 1
