"""Verdicts: of an interval beside limits, and of runs that each have one."""

import pytest

from tokenshift.analysis.report.statements import agreed, within


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
