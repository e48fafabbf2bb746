"""The kinds of values that an answer may be: a number, an amount, a list, a tuple, an interval, a date, text ..."""

from dataclasses import dataclass, field
from fractions import Fraction

from tokenshift.rewards.dates import Date, Time
from tokenshift.rewards.units import Unit
from tokenshift.rewards.written_numbers import WrittenNumber

LONGEST_PROSE = 3  # words of an answer that is text
LAST_CHOICES = {(which, "of", "the", "above") for which in ("all", "none", "both", "neither")}
SET = "\\{\\}"


@dataclass(frozen=True)
class Value:
    """An answer.

    Attributes:
        text: the answer in one spelling (`tokenshift.rewards.spelling`).
    """

    text: str = field(compare=False)


@dataclass(frozen=True)
class Number(Value):
    """A number with an exact value."""

    number: WrittenNumber


@dataclass(frozen=True)
class Amount(Value):
    """A value with a unit.

    Attributes:
        value: the value.
        unit: the unit.
        is_product: whether it may be a product as well, since the unit is one letter outside of text: `2 m`.
    """

    value: Value
    unit: Unit
    is_product: bool = False


@dataclass(frozen=True)
class Based(Value):
    """A number in a base that is written with it."""

    digits: str
    base: int


@dataclass(frozen=True)
class Listed(Value):
    r"""Several values.

    Attributes:
        items: the values.
        brackets: nothing for a list, `\{\}` for a set, `()`, `[]`, `[)` and `(]` for tuples and intervals.
    """

    items: tuple[Value, ...]
    brackets: str = ""

    @property
    def ordered(self) -> bool:
        """Whether the order of the values counts."""
        return self.brackets not in ("", SET)


@dataclass(frozen=True)
class United(Value):
    """A union of intervals or sets."""

    parts: tuple[Value, ...]


@dataclass(frozen=True)
class Matrix(Value):
    """A matrix, or a determinant."""

    rows: tuple[tuple[Value, ...], ...]
    determinant: bool = False


@dataclass(frozen=True)
class Named(Value):
    """A value that is said to be that of a name: `x = 5`."""

    name: str
    value: Value


@dataclass(frozen=True)
class Proportion(Value):
    """`3:2`."""

    terms: tuple[Fraction, ...]


@dataclass(frozen=True)
class Dated(Value):
    """A date."""

    date: Date


@dataclass(frozen=True)
class Timed(Value):
    """A time of day."""

    time: Time


@dataclass(frozen=True)
class Choice(Value):
    """A letter of a multiple choice, and the text of the choice, if it is there."""

    letter: str
    content: str = ""


@dataclass(frozen=True)
class Words(Value):
    """Text that is no mathematics."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Unread(Value):
    """A number with words that make it another thing (`5 or more`), or with points that mean nothing (`1.2.3`)."""


@dataclass(frozen=True)
class Formula(Value):
    """Anything else: a formula that math-verify reads, or nothing that can be read."""


def by_name(value: Value) -> Value:
    """The named values of `(x, y) = (1, 2)`; any other value as it is."""
    if isinstance(value, Named) and value.name.startswith("(") and isinstance(value.value, Listed):
        names, items = value.name.strip("()").split(","), value.value.items
        if value.value.brackets == "()" and len(names) == len(items):
            named = (Named(f"{name}={item.text}", name, item) for name, item in zip(names, items, strict=True))
            return Listed(value.text, tuple(named))
    return value


def is_readable(value: Value) -> bool:
    """Whether a value is one that answers can be compared with: something, and not prose of many words."""
    if isinstance(value, Words):
        return 0 < len(value.words) <= LONGEST_PROSE or value.words in LAST_CHOICES
    if isinstance(value, Listed):
        return all(is_readable(item) for item in value.items)
    if isinstance(value, Named | Amount):
        return is_readable(value.value)
    return not isinstance(value, Unread) and bool(value.text)
