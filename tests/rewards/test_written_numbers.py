"""Written numbers and their exact values; units and their sizes."""

from fractions import Fraction

import pytest

from tokenshift.rewards.spelling import spelled
from tokenshift.rewards.units import split_unit
from tokenshift.rewards.written_numbers import WrittenNumber, read_number, same_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("72", 72), ("-7.50", Fraction(-15, 2)), (".5", Fraction(1, 2)), ("7.", 7), ("1e3", 1000), ("0x1F", 31)),
        *(("7/3", Fraction(7, 3)), (r"-\frac{7}{3}", Fraction(-7, 3)), (r"\frac{1}{2^{10}}", Fraction(1, 1024))),
        *((r"1\frac{1}{2}", Fraction(3, 2)), ("-1 1/2", Fraction(-3, 2)), (r"2^{-3}", Fraction(1, 8))),
        *((r"1.5 \times 10^{-3}", Fraction(3, 2000)), (r"0.1\overline{6}", Fraction(1, 6)), ("2 million", 2 * 10**6)),
    ],
)
def test_values(text: str, value: Fraction | int) -> None:
    number = read_number(text)
    assert number is not None
    assert number.value == value


@pytest.mark.parametrize(
    "text", ["", "x", "1,2", "1 2", r"\frac{1}{0}", "1/0", "1 3/2", "10^{99999}", "1e99999", "9" * 3000]
)
def test_no_numbers(text: str) -> None:
    assert read_number(text) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        *(("0.333333", "1/3", True), ("0.33333", "1/3", False), ("0.333334", "1/3", False), ("0.500000", "1/2", True)),
        *(
            ("0.1234567", "0.1234571", False),
            ("0.1234567", "0.123457", False),
            ("0.3333333333333333", "0.333333", True),
        ),
        *(("0.142857", "1/7", True), ("0.142857", "0.142857142857", True), ("0.5000001", "1/2", False)),
    ],
)
def test_same_number(one: str, other: str, same: bool) -> None:
    numbers = [number for number in map(read_number, (one, other)) if number is not None]
    assert same_number(numbers[0], numbers[1]) is same
    assert same_number(numbers[1], numbers[0]) is same


def test_decimals_know_their_digits() -> None:
    assert read_number("0.0120") == WrittenNumber(Fraction(3, 250), 3, 4)
    assert read_number("72.0") == WrittenNumber(Fraction(72))


@pytest.mark.parametrize(
    ("text", "amount", "kinds", "size"),
    [
        ("12 cm", "12", (("length", 1),), Fraction(1, 100)),
        (r"12\text{ cm}^2", "12", (("length", 2),), Fraction(1, 10000)),
        ("60 km/h", "60", (("length", 1), ("time", -1)), Fraction(5, 18)),
        (r"\$18.50", "18.50", (("dollars", 1),), 1),
        (r"50\%", "50", (("percent", 1),), 1),
        ("5 apples", "5", (("apple", 1),), 1),
        (r"4\pi \text{ square meters}", r"4\pi", (("length", 2),), 1),
    ],
)
def test_units(text: str, amount: str, kinds: tuple[tuple[str, int], ...], size: Fraction) -> None:
    split = split_unit(text)
    assert split is not None
    assert (split[0], split[1].kinds, split[1].size) == (amount, kinds, size)


@pytest.mark.parametrize(
    "text", ["12", "2x", "3t", "5 abc", r"\sin 30^\circ", "x is even", r"1 \text{ and } 2", "2 sin x"]
)
def test_no_units(text: str) -> None:
    assert split_unit(text) is None


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        (r"$\dfrac12$", r"\frac{1}{2}"),
        (r"\tfrac{8\pi}5", r"\frac{8\pi}{5}"),
        (r"\sqrt2", r"\sqrt{2}"),
        *((thousand, "1000") for thousand in ("1,000", "1 000", r"1\,000", "1{,}000", r"1,\!000", "1\u202f000")),
        ("1,00", "1,00"),
        ("(1,000)", "(1,000)"),
        ("(1,000, 2)", "(1000, 2)"),
        ("The answer is 5.", "5"),
        (r"\text{13}", "13"),
        ("$5", r"\$5"),
        ("2^10", "2^{10}"),
        ("x²", "x^{2}"),
        (r"\\frac{1}{2}", r"\frac{1}{2}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    ],
)
def test_one_spelling(text: str, spelling: str) -> None:
    assert spelled(text) == spelling
    assert spelled(spelling) == spelling


def test_decimal_commas() -> None:
    assert [spelled(text, decimal_comma=True) for text in ("1,5", "1.000", "1.234,5", "1{,}5")] == [
        "1.5",
        "1000",
        "1234.5",
        "1.5",
    ]
