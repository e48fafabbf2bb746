r"""Units, currencies and the percent sign after or before an amount.

A unit that is left out is taken as understood; a unit that is written must be the right one, or one of the same kind:
`12 cm` is `12` and `0.12 m`, and not `12 km`.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from tokenshift.rewards.written_numbers import SCALES

PERCENT = "percent"
LONGEST = 400  # characters of an amount with a unit

_SIZES: dict[str, dict[str, str]] = {  # kind -> size in the kind's first unit -> names
    "length": {
        "1": "m meter metre",
        "1/100": "cm centimeter centimetre",
        "1/1000": "mm millimeter millimetre",
        "1000": "km kilometer kilometre",
        "1/10": "dm decimeter decimetre",
        "1/1000000": "um micrometer micron",
        "1/1000000000": "nm nanometer nanometre",
        "127/5000": "in inch inche",
        "381/1250": "ft foot feet",
        "1143/1250": "yd yard",
        "201168/125": "mi mile",
    },
    "mass": {
        "1": "g gm gram gramme",
        "1000": "kg kilogram kilo",
        "1/1000": "mg milligram",
        "1000000": "tonne",
        "45359237/100000": "lb pound",
        "45359237/1600000": "oz ounce",
    },
    "time": {
        "1": "s sec second",
        "60": "min minute",
        "3600": "h hr hour",
        "86400": "day",
        "604800": "week",
        "1/1000": "ms millisecond",
    },
    "volume": {"1": "l liter litre", "1/1000": "ml milliliter millilitre", "1/100": "cl centiliter"},
    "cups": {
        "1": "cup",
        "1/16": "tablespoon tbsp",
        "1/48": "teaspoon tsp",
        "2": "pint",
        "4": "quart qt",
        "16": "gallon gal",
    },
    "long time": {"1": "month", "12": "yr year", "120": "decade", "1200": "century centurie"},
    "dollars": {"1": "$ dollar usd buck", "1/100": "cent ¢ penny pennie"},
    "euros": {"1": "€ euro eur"},
    "pounds sterling": {"1": "£ gbp"},
    "yen": {"1": "¥ yen jpy"},
    "rupees": {"1": "₹ rupee inr rs"},
    "rubles": {"1": "₽ ruble rouble"},
    "won": {"1": "₩ won"},
    "angle": {"1": "degree deg", "1/60": "arcminute"},
    "radians": {"1": "radian rad"},
    "celsius": {"1": "celsius degreec c°"},
    "fahrenheit": {"1": "fahrenheit degreef"},
    "energy": {"1": "j joule", "1000": "kj kilojoule"},
    "power": {"1": "w watt", "1000": "kw kilowatt"},
    "force": {"1": "n newton"},
    "frequency": {"1": "hz hertz", "1000": "khz kilohertz"},
    "percent": {"1": "percent %"},
}
KNOWN = {
    name: (kind, Fraction(size))
    for kind, sizes in _SIZES.items()
    for size, names in sizes.items()
    for name in names.split()
}
KNOWN_BY_KIND = {
    kind: next(name for name in sizes["1"].split() if len(name) > 1)
    for kind, sizes in _SIZES.items()
    if "1" in sizes and any(len(name) > 1 for name in sizes["1"].split())
}
KINDS = frozenset(_SIZES)
CURRENCIES = "$€£¥₹₽₩"
GENERIC = "unit"
RAISED_WORDS = {"square": 2, "squared": 2, "sq": 2, "cubic": 3, "cubed": 3, "cu": 3}
FILLERS = frozenset(("of", "a", "an", "the", "in", "total", "long", "old", "each", "away", "apart", "more"))
SPEEDS = {"mph": "mi/h", "kmph": "km/h", "kmh": "km/h", "kph": "km/h", "mps": "m/s", "fps": "ft/s"}
FUNCTIONS = frozenset(
    [
        "pi",
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "log",
        "ln",
        "exp",
        "sqrt",
        "lim",
        "arcsin",
        "arccos",
        "arctan",
        "mod",
        "and",
        "or",
        "if",
        "for",
        "is",
        "to",
        "inf",
        "infinity",
        "am",
        "pm",
    ]
)
CASED = {"C": "celsius", "F": "fahrenheit"}
EXACT = {  # symbols that differ from another unit's only by their case
    "MW": ("power", Fraction(10**6)),
    "mW": ("power", Fraction(1, 1000)),
    "MJ": ("energy", Fraction(10**6)),
    "mJ": ("energy", Fraction(1, 1000)),
    "MHz": ("frequency", Fraction(10**6)),
    "mHz": ("frequency", Fraction(1, 1000)),
    "Mg": ("mass", Fraction(10**6)),
    "ML": ("volume", Fraction(10**6)),
    "Mm": ("length", Fraction(10**6)),
    "Nm": ("torque", Fraction(1)),
    "M": ("molar", Fraction(1)),
    "G": ("gauss", Fraction(1)),
    "S": ("siemens", Fraction(1)),
    "H": ("henry", Fraction(1)),
    **{f"{prefix}B": ("bytes", Fraction(8 * size)) for prefix, size in (("M", 10**6), ("G", 10**9), ("T", 10**12))},
    **{f"{prefix}b": ("bytes", Fraction(size)) for prefix, size in (("M", 10**6), ("G", 10**9), ("T", 10**12))},
}
NO_UNITS = re.compile(
    r"(?i)(?<![a-z\\])(?:squared|cubed|inverse|reciprocal|base|root|negative|positive|half|wrong|not|no|never|without"
    r"|remainder|approximately|about|roughly|around|almost|fewer|less|more|greater|smaller|larger|least|most|than"
    r"|divided|multiplied|plus|minus|times|over|factorial|below|above|under|opposite|incorrect|false|maybe|or|and"
    r"|modulo|power|choose|except|nor|when|whenever|unless|provided|assuming|otherwise)(?![a-z])"
    r"|(?<=\d)(?:\s|\\text\s*\{)*\s*(?:subtracted|taken|added|raised|out|doubled|tripled|quadrupled|halved|point"
    r"|increased|decreased|reduced|removed|deducted|with|between|among|from|by"
    r"|given|comma|dot|repeating|recurring|inverted|negated|score|up\s+to|as\s+long)(?![a-z])"
    r"|(?<![a-z\\])as\s+long\s+as(?![a-z])"
    r"|(?<![a-z\\])(?:by\s+\d|in\s+decimal(?![a-z])"
    r"|(?:binary|ternary|quaternary|quinary|octal|hexadecimal|hex)(?:\s+(?:form|notation|representation|system))?"
    r"(?!\s*[a-z]))"
)
SCALE_WORD = re.compile(
    rf"(?i)\s*(\\text\s*\{{)?\s*({'|'.join(sorted(SCALES, key=len, reverse=True))})s?(?![a-z])(?!\s+grade)"
)
MOST_NAMES = 3  # words of a unit that is not known
VARIABLES = frozenset("abcdfghjklmnpqrstvwxyz")  # three of these alone are a product and no word
SINGLE_LETTERS = frozenset("mgshLlNJWV")
LETTERS_IN_TEXT = SINGLE_LETTERS | frozenset("ACFGHKMSTdt")

CURRENCY_BEFORE = re.compile(rf"([-+]?)\s*(\\[$]|[{CURRENCIES}]|(?:USD|EUR|GBP|Rs\.?)\s)\s*(?=[-+\d.(\\])")
RAISED = r"(?:\s*\^\s*(?:\{-?\d\}|-?\d))?"
IN_TEXT = r"\\text\s*\{[^{}\\$]*\}" + RAISED
AFTER = re.compile(
    r"(?P<amount>.*?[\w)}\]!.])(?P<gap>\s*)"
    r"(?P<unit>\\%|\^\\circ\s*(?:\\text\s*\{\s*)?[CF]?(?:\s*\})?|\\[$]|[€£¥₹₽₩¢]"
    rf"|{IN_TEXT}(?:\s*/\s*{IN_TEXT})?"
    rf"|(?<![A-Za-z\\])[A-Za-z][A-Za-z /.\-]*{RAISED}(?:/[A-Za-z]+{RAISED})?)"
)
CLAUSE = re.compile(
    r"(?i)(?<=[a-z])\s+(?:to|in|on|for|from|with|that|which|who|where|left|remaining|at|by|of|between|among"
    r"|older|younger|taller|longer|shorter|heavier|farther|further|later|earlier|away|as|every|together|altogether)"
    r"(?![a-z]).*?"
    r"(?=\s*\}|$)"
)
TIMES = re.compile(
    r"(?i)(?<=\d)(?:\s|\\text\s*\{)*\s*times(?=[\s.}]*$|\s+(?:as|per|a|an|each|every|in|more|daily|longer|older|larger"
    r"|bigger|faster|heavier|taller|weekly|monthly)(?![a-z]))"
)
"""The word in "3 times", a number of events or a factor, and not in "3 times x"."""
NOUNS = re.compile(r"(?<=[a-z]{3})\s+and\s+(?=[a-z]{3,}(?: [a-z]{3,})?\s*\}?$)")
"""The "and" between two nouns at the end, as in "7 boys and girls"."""
MORE = re.compile(r"(?i)(?<=[\da-z{])\s*(?<!or )(?<!or)(?<![a-z])more(?![a-z])(?!\s+than)")
"""The word in "5 more" and "5 more apples", and not in "5 or more"."""
RATE = re.compile(
    r"(?P<amount>[-+]?[\d.]+)\s*(?:\\text\s*\{)?\s*"
    r"(?:per\s|an?\s|each\s|/(?:\s*\\text\s*\{)?)\s*(?P<unit>[A-Za-z ]+?)\s*\}?"
)
FUNCTION_COMMAND = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
WORD = re.compile(r"[a-z]+")
EXPONENT = re.compile(r"\^\s*\{?(-?[1-9])\}?")
UNIT_FRACTION = re.compile(
    rf"(?P<amount>.*[\d)}}\]])\s*\\frac\s*\{{\s*(?P<over>{IN_TEXT}|[A-Za-z]+{RAISED})\s*\}}"
    rf"\s*\{{\s*(?P<under>{IN_TEXT}|[A-Za-z]+{RAISED})\s*\}}"
)
UNIT_PRODUCT = re.compile(r"(?P<amount>.*?[\d)}\]])\s*(?P<units>(?:\\text\s*\{|(?<=\s)[A-Za-z]{1,4}(?![A-Za-z])).*)")
UNIT_POWER = re.compile(r"([A-Za-z]{1,6})(?:\^(-?[1-9]))?")


@dataclass(frozen=True)
class Unit:
    """A unit.

    Attributes:
        kinds: kinds of quantity with their exponents, sorted: a speed is `(("length", 1), ("time", -1))`.
        size: size in the first units of the kinds.
    """

    kinds: tuple[tuple[str, int], ...]
    size: Fraction = Fraction(1)

    @property
    def is_generic(self) -> bool:
        """Whether it only says "units"."""
        return [kind for kind, _ in self.kinds] == [GENERIC]

    @property
    def is_percent(self) -> bool:
        """Whether it is the percent sign."""
        return self.kinds == ((PERCENT, 1),)


def same_noun(unit: Unit, other: Unit) -> bool:
    """Whether two units count the same things, of which one says more: `ways` and `different ways`."""
    if len(unit.kinds) != 1 or len(other.kinds) != 1:
        return False
    (noun, exponent), (other_noun, other_exponent) = unit.kinds[0], other.kinds[0]
    if exponent != other_exponent or {noun, other_noun} & KINDS:
        return False
    words, other_words = noun.split(), other_noun.split()
    shared = min(len(words), len(other_words))
    return shared > 0 and words[-shared:] == other_words[-shared:]


def split_unit(text: str) -> tuple[str, Unit] | None:
    """The amount and the unit of a text that ends in a unit or begins with a currency; None where it does neither."""
    if match := CURRENCY_BEFORE.match(text):
        sign, symbol = match.group(1), match.group(2).replace("\\", "").strip(" .").lower()
        amount = sign + text[match.end() :]
        currency = Unit(((KNOWN[symbol][0], 1),), KNOWN[symbol][1])
        if rate := RATE.fullmatch(amount):  # "$5 per hour", "$5/hour"
            return split_unit(f"{rate['amount']} \\text{{ {KNOWN_BY_KIND[currency.kinds[0][0]]} per {rate['unit']}}}")
        after = split_unit(amount)  # "$5 dollars", "$5 million"
        return (after[0], currency) if after is not None and after[1] == currency else (amount, currency)
    if len(text) <= LONGEST and (product := _split_product(text)) is not None:
        return product
    match = AFTER.fullmatch(text) if len(text) <= LONGEST else None
    if match is None:
        return None
    amount, written, glued = match["amount"].strip(), match["unit"].strip(), not match["gap"]
    if scale := SCALE_WORD.match(written):
        amount = f"{amount} {scale.group(2).lower()}"
        rest = written[scale.end() :].strip()
        written, glued = (f"\\text{{ {rest}" if scale.group(1) else rest), False
        if not re.search(r"[a-z]", rest, re.IGNORECASE) or says_no_quantity(rest):
            return None
        unit = read_unit(written)
        return None if unit is None else (amount, unit)
    if says_no_quantity(text):
        return None
    written = NOUNS.sub(" ", without_clause(written))
    if any(word in FUNCTIONS for word in WORD.findall(written.lower().replace("\\text", ""))):
        return None
    if "circ" in written and FUNCTION_COMMAND.search(amount):
        return None  # the unit of an argument
    if written[0].isalpha():
        if not amount[-1].isdecimal() and not (amount[-1] in ")}" and match["gap"]):
            return None
        whole = written.replace(" ", "").partition("^")[0].partition("/")[0].rstrip(".")
        singular = _singular(whole.lower())
        if len(whole) == 1 and (glued or whole not in SINGLE_LETTERS):
            return None
        known = singular in KNOWN or singular in SPEEDS or whole in EXACT
        if not known and (glued or len(whole) == 2 or (len(whole) == 3 and VARIABLES.issuperset(whole))):
            return None
    letter = re.sub(r"\\text|[{}\s.]", "", written)
    if written.startswith("\\text") and len(letter) == 1 and letter.isalpha() and letter not in LETTERS_IN_TEXT:
        return None  # a variable
    unit = read_unit(written)
    return None if unit is None else (amount, unit)


def _split_product(text: str) -> tuple[str, Unit] | None:
    r"""The amount and the unit, where the unit is a product of powers or a fraction: `m s^{-1}`, `\frac{km}{h}`."""
    if match := UNIT_FRACTION.fullmatch(text):
        over, under = (_plain_unit(match[name]) for name in ("over", "under"))
        symbols = [part.partition("^")[0] for part in (over, under)]
        # m/s without a sign of text may be two variables
        if ("\\text" in text or max(map(len, symbols)) > 1) and all(_known(symbol) for symbol in symbols):
            unit = read_unit(f"{over}/{under}")
            return None if unit is None else (match["amount"].strip(), unit)
        return None
    if "^" not in text and "\\cdot" not in text:
        return None
    match = UNIT_PRODUCT.fullmatch(text)
    if match is None:
        return None
    kinds: dict[str, int] = {}
    size = Fraction(1)
    groups = _plain_unit(match["units"]).split("/")
    factors = [(part, -1 if index else 1) for index, group in enumerate(groups) for part in group.split()]
    for part, sign in factors:
        power = UNIT_POWER.fullmatch(part)
        if power is None or not _known(power.group(1)):
            return None
        factor = _factor(power.group(1))
        if factor is None:
            return None
        exponent = sign * int(power.group(2) or 1)
        kinds[factor[0]] = kinds.get(factor[0], 0) + exponent
        size *= factor[2] ** exponent
    if len(factors) < 2 and "\\text" not in text:
        return None
    return match["amount"].strip(), Unit(tuple(sorted((kind, power) for kind, power in kinds.items() if power)), size)


def _plain_unit(written: str) -> str:
    """A product of units without the commands of LaTeX: `m s^-1`."""
    written = re.sub(r"\\text\s*(?=\{)|\\cdot(?![a-z])", " ", written)
    return re.sub(r"\s*\^\s*", "^", re.sub(r"[{}]", "", written)).strip(" .")


def _known(name: str) -> bool:
    return name in EXACT or _singular(name.lower()) in KNOWN


def without_clause(written: str) -> str:
    """The words of a unit without what follows the noun: `ways` of `ways to go home`."""
    clause = CLAUSE.search(written)
    if clause is None:
        return written
    return written[: clause.start()] + ("}" if "\\text" in written and "}" not in written[: clause.start()] else "")


def says_no_quantity(text: str) -> bool:
    """Whether words of operation, negation, comparison or base stand with a number: `5 or more`, `12 squared`."""
    said = NO_UNITS.findall(NOUNS.sub("", MORE.sub(" ", TIMES.sub(" ", text))))
    if not said or not re.search(r"\d", text):
        return False
    # "5 metres squared" is a unit, "12 squared" is none
    raised = re.search(r"[a-z]{2,} (?:squared|cubed)\s*\}?$", text.replace("\\text", ""))
    return not (raised and len(said) == 1)


def read_unit(written: str) -> Unit | None:
    """The unit that a text names; None where it can be none."""
    written = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", written).replace("\\", "").replace("^circ", " degree ")
    over, *under = re.sub(r"\bper\b", "/", written).split("/")
    kinds: dict[str, int] = {}
    size = Fraction(1)
    for sign, part in ((1, over), *((-1, part) for part in under)):
        if sign == 1 and (speed := SPEEDS.get(part.strip(" .").lower())):
            return read_unit(speed)
        factor = _factor(part)
        if factor is None:
            return None
        kind, exponent, factor_size = factor
        kinds[kind] = kinds.get(kind, 0) + sign * exponent
        size *= factor_size ** (sign * exponent)
    return Unit(tuple(sorted(kinds.items())), size)


def _factor(part: str) -> tuple[str, int, Fraction] | None:
    """The kind, exponent and size of a unit without "per"."""
    exponent = 1
    if raised := EXPONENT.search(part):
        exponent, part = int(raised.group(1)), part[: raised.start()]
    words = re.findall(r"[^\s.,]+", part)
    if not 1 <= len(words) <= 5 or any(word.isdecimal() for word in words):
        return None
    if [word.lower() for word in words] in (["more"], ["total"], ["in", "total"]):
        return GENERIC, 1, Fraction(1)
    named: list[str] = []
    if len(words) == 1 and words[0] in EXACT:
        kind, size = EXACT[words[0]]
        return kind, exponent, size
    for word in words:
        if word.lower() in RAISED_WORDS and len(words) > 1:
            exponent = RAISED_WORDS[word.lower()]
        elif word.lower() not in FILLERS:
            named.append(CASED.get(word) or _singular(word.lower()))
    if named[:1] == ["degree"] and named[1:] in (["celsius"], ["fahrenheit"]):
        named = named[1:]
    if len(named) == 1 and named[0] in KNOWN:
        kind, size = KNOWN[named[0]]
        return kind, exponent, size
    return (" ".join(named), exponent, Fraction(1)) if 1 <= len(named) <= MOST_NAMES else None


def _singular(word: str) -> str:
    if word in KNOWN or len(word) < 3:
        return word
    for ending, stem in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("men", "man"), ("s", "")):
        if word.endswith(ending) and not word.endswith("ss"):
            return word[: -len(ending)] + stem
    return word
