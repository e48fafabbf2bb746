"""Verdicts: of an interval beside limits, and of runs that each have one."""

import math

import pytest

from tokenshift.analysis.report.statements import Statement, agreed, deciding_words, more_data, within


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.81, 0.9, "seen"),
        (0.8, 0.9, "open"),  # the limit itself is not above it
        (0.7, 0.8, "not seen"),
        (0.7, 0.81, "open"),
        (1.0, 1.1, "not seen"),
        (0.9, 1.0, "open"),
        (None, None, "open"),
    ],
)
def test_a_whole_interval_decides(low: float | None, high: float | None, verdict: str) -> None:
    assert within({"value": 0.9, "low": low, "high": high}, above=0.8, below=1.0) == verdict


def test_no_number_is_open() -> None:
    assert within(None, above=0.0) == "open"


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [
        (["seen"] * 3, "seen"),
        (["seen in this run", "seen", "seen in this run"], "seen"),
        (["not seen in this run"] * 3, "not seen"),
        (["seen", "seen", "not seen"], "open"),
        (["seen", "seen", "open"], "open"),
        (["open"] * 3, "open"),
        (["seen", "seen"], "open: 2 runs are too few"),
        (["seen in this run"], "seen in this run"),
    ],
)
def test_runs_agree_or_the_statement_is_open(verdicts: list[str], together: str) -> None:
    assert agreed(verdicts) == together


@pytest.mark.parametrize(
    ("mean", "limits"),
    [
        ((0.85, 0.75, 0.95), (0.8, math.inf)),
        ((0.75, 0.7, 0.85), (0.8, math.inf)),
        ((0.05, 0.01, 0.2), (-math.inf, 0.1)),
        ((0.12, 0.05, 0.2), (-math.inf, 0.1)),
        ((0.3, 0.1, 0.4), (0.15, 0.45)),
        ((0.1, 0.05, 0.3), (0.15, 0.45)),
    ],
)
def test_so_much_more_data_decides_and_less_does_not(
    mean: tuple[float, float, float], limits: tuple[float, float]
) -> None:
    value, low, high = mean

    def with_times(times: float) -> str:
        ends = {"low": value - (value - low) / math.sqrt(times), "high": value + (high - value) / math.sqrt(times)}
        return within({"value": value, **ends}, *limits)

    times = more_data(dict(zip(("value", "low", "high"), mean, strict=True)), *limits)
    assert times is not None
    assert times > 1
    assert with_times(1) == with_times(0.99 * times) == "open"
    assert with_times(1.01 * times) != "open"


def test_a_decided_statement_needs_no_more_data() -> None:
    for value, low, high in ((0.9, 0.85, 0.95), (0.7, 0.6, 0.75), (0.8, 0.7, 0.9), (0.9, None, None)):
        assert more_data({"value": value, "low": low, "high": high}, above=0.8) is None
    assert more_data(None) is None


@pytest.mark.parametrize(
    ("more", "words"),
    [(None, ""), (1.02, "about 1.1 times"), (6.2, "about 7 times"), (4_000.0, "too near the limit")],
)
def test_what_would_decide_a_statement_in_words(more: float | None, words: str) -> None:
    assert words in deciding_words(Statement("text", "published", "measured", "open", more=more))
