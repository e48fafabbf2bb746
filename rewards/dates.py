"""Dates and times of day, as answers write them."""

import re
from dataclasses import dataclass

MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
)
MONTH_NUMBERS = {name[:length]: number for number, name in enumerate(MONTHS, 1) for length in (3, 4, len(name))}
WEEKDAY = r"(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day,?\s+)?"
DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
MONTH_FIRST = re.compile(rf"(?i){WEEKDAY}([a-z]{{3,9}})\.?\s+{DAY}(?:(?:,|\s)\s*(\d{{4}}))?")
DAY_FIRST = re.compile(rf"(?i){WEEKDAY}(?:the\s+)?{DAY}\s+(?:of\s+)?([a-z]{{3,9}})\.?(?:,?\s+(\d{{4}}))?")
ISO = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
SLASHED = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})")
TIME = re.compile(r"(?i)(\d{1,2})\s*(?::\s*(\d{2}))?(?:\s*:\s*(\d{2}))?\s*(?:(a|p)\s*\.?\s*m\b\.?|(noon|midnight))?")


@dataclass(frozen=True)
class Date:
    """A date.

    Attributes:
        month, day: numbers from 1; in a slashed date that could be read both ways, the numbers in order of writing.
        year: None where none is written.
        slashed: whether the date is such a one.
    """

    month: int
    day: int
    year: int | None
    slashed: bool = False


@dataclass(frozen=True)
class Time:
    """A time of day.

    Attributes:
        hour, minute, second: as written.
        half: `a` or `p` of am and pm; None where it is not written.
    """

    hour: int
    minute: int
    second: int
    half: str | None


def read_date(text: str) -> Date | None:
    """The date that the whole text is."""
    if len(text) > 60 or not any(character.isdecimal() for character in text):
        return None
    plain = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).strip()
    plain = re.sub(r"\^\{?(st|nd|rd|th)\}?", r"\1", plain)
    if match := ISO.fullmatch(plain):
        return _date(int(match.group(2)), int(match.group(3)), int(match.group(1)))
    if match := SLASHED.fullmatch(plain):
        first, second, slashed_year = map(int, match.groups())
        if first <= 12 and second <= 12 and first != second:
            return Date(first, second, slashed_year, slashed=True)
        return _date(*((first, second) if first <= 12 else (second, first)), slashed_year)
    if match := MONTH_FIRST.fullmatch(plain):
        month, day, year = match.groups()
    elif match := DAY_FIRST.fullmatch(plain):
        day, month, year = match.groups()
    else:
        return None
    return _date(MONTH_NUMBERS.get(month.lower(), 0), int(day), int(year) if year else None)


def _date(month: int, day: int, year: int | None) -> Date | None:
    return Date(month, day, year) if 1 <= month <= 12 and 1 <= day <= 31 else None


def same_date(date: Date, other: Date) -> bool:
    """Whether two dates are the same; one without a year is the same in every year."""
    years = None in (date.year, other.year) or date.year == other.year
    return years and (date.month, date.day, date.slashed) == (other.month, other.day, other.slashed)


def read_time(text: str) -> Time | None:
    """The time of day that the whole text is: with am, pm, noon or midnight, or hours and minutes (`15:30`)."""
    if len(text) > 40 or not text[:1].isdecimal():
        return None
    plain = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).strip()
    match = TIME.fullmatch(plain)
    if match is None:
        return None
    hour, minute, second, half, named = match.groups()
    if minute is None and half is None and named is None:
        return None
    half = {"noon": "p", "midnight": "a"}[named.lower()] if named else half and half.lower()
    time = Time(int(hour), int(minute or 0), int(second or 0), half)
    return time if time.hour <= 24 and time.minute < 60 and time.second < 60 else None


def same_time(time: Time, other: Time) -> bool:
    """Whether two times are the same; `3:30` is `3:30 pm` too, and is not `15:30`."""
    if (time.minute, time.second) != (other.minute, other.second):
        return False
    if time.half is None and other.half is None:
        return time.hour == other.hour
    return bool(_hours(time) & _hours(other))


def _hours(time: Time) -> set[int]:
    """Hours of a day of 24 that a time can be in."""
    if time.half is not None:
        return {time.hour % 12 + 12 * (time.half == "p")} if 1 <= time.hour <= 12 else {time.hour % 24}
    return {time.hour % 24} if time.hour > 12 or time.hour == 0 else {time.hour % 12, time.hour % 12 + 12}
