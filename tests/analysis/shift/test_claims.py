"""Verdicts agree with the numbers beside them, whatever the numbers are."""

import itertools
import re
from typing import Any

import pytest
from helpers import hand_table

from tokenshift.analysis import summarise
from tokenshift.analysis.report.statements import Statement
from tokenshift.analysis.shift.claims import statements
from tokenshift.analysis.shift.evolution import PERCENTILES, evolution_statements

EDGES = (0.0, 0.0005, 0.05, 0.1, 0.15, 0.3, 0.45, 0.5, 0.8, 0.83, 0.95, 1.0)
"""Shares on and between all limits."""

SHARES = {
    # start of the statement: mean, label, and whether a share lets the statement be true
    "Most tokens are near zero": ("sparsity", "< 0.001", lambda share: share > 0.83),
    "Near-zero tokens are mostly": ("low_entropy_base", "near_zero", lambda share: share > 0.5),
    "High-JS tokens are of low and": ("low_entropy_base", "high", lambda share: 0.05 < share < 0.95),
    "High-JS tokens keep": ("overlap_high", "2", lambda share: share > 0.8),
    "RL's top-1 is the base's top-1": ("rank_high", "<= 1", lambda share: 0.15 < share < 0.45),
    "RL's top-1 is among": ("rank_high", "<= 3", lambda share: share > 0.8),
    "RL's top-1 is seldom": ("improbable_high", "< 0.01", lambda share: share < 0.1),
}


@pytest.fixture(scope="module")
def group() -> dict[str, Any]:
    return {**summarise(hand_table.table(), measure="js", resamples=20)["rl"]["all"], "problems": 50}


def with_mean(group: dict[str, Any], name: str, label: str, *numbers: float | None) -> dict[str, Any]:
    listed = {key: list(values) for key, values in group["means"][name].items()}
    for key, number in zip(("value", "low", "high"), numbers, strict=True):
        listed[key][listed["labels"].index(label)] = number
    return {**group, "means": {**group["means"], name: listed}}


def statement(found: list[Statement], begin: str) -> Statement:
    (one,) = (each for each in found if each.text.startswith(begin))
    return one


@pytest.mark.parametrize("begin", SHARES)
def test_a_share_is_judged_by_its_whole_interval(group: dict[str, Any], begin: str) -> None:
    name, label, true = SHARES[begin]
    for low, value, high in itertools.combinations_with_replacement(EDGES, 3):
        judged = statement(statements(with_mean(group, name, label, value, low, high)), begin)
        assert re.search(rf"\b{100 * value:.1f} %", judged.measured), judged
        if judged.verdict == "seen":
            assert true(low), judged
            assert true(value), judged
            assert true(high), judged
        elif judged.verdict == "not seen":
            assert not true(low), judged
            assert not true(value), judged
            assert not true(high), judged
        else:
            assert true(low) != true(high) or (not true(low) and low < high), judged
    for nothing in ((None, None, None), (0.5, None, None)):
        assert statement(statements(with_mean(group, name, label, *nothing)), begin).verdict == "open"


def test_all_statements_are_judged_here(group: dict[str, Any]) -> None:
    """A statement that is added needs a line above, or a test below."""
    others = ("JS is high at", "JS is up again", "Tokens frequent among", "Overlap rises", "An SFT shift")
    for judged in statements(group, group):
        assert judged.text.startswith((*SHARES, *others)), judged.text


def test_overlaps_rise(group: dict[str, Any]) -> None:
    for one, two, three in itertools.product((0.0, 0.05, 0.1, 0.11, 0.5, 0.9, 0.9004, 1.0), repeat=3):
        changed = group
        for label, value in (("1", one), ("2", two), ("3", three)):
            changed = with_mean(changed, "overlap_high", label, value, value, value)
        judged = statement(statements(changed), "Overlap rises")
        first, second = map(float, re.findall(r"by (-?[\d.]+)", judged.measured))
        expected = "seen" if first >= 10 and first > 2 * second else "not seen"
        assert judged.verdict == ("open" if first >= 10 and second < first <= 2 * second else expected), judged


@pytest.mark.parametrize(("low", "count", "verdict"), [(0, 5, "not seen"), (3, 5, "seen"), (2, 4, "open")])
def test_frequent_tokens(group: dict[str, Any], low: int, count: int, verdict: str) -> None:
    identity = {**group["identity"], "high": [{}] * count, "frequent_mostly_low": low / count}
    judged = statement(statements({**group, "identity": identity}), "Tokens frequent")
    assert (judged.measured, judged.verdict) == (f"{low} of {count} tokens", verdict)


def test_an_sft_shift_is_denser_only_where_intervals_are_apart(group: dict[str, Any]) -> None:
    for rl, sft in itertools.product(itertools.combinations_with_replacement((0.0, 0.5, 0.9, 1.0), 2), repeat=2):
        pair = [with_mean(group, "sparsity", "< 0.001", low, low, high) for low, high in (rl, sft)]
        judged = statement(statements(*pair), "An SFT shift")
        expected = "seen" if sft[1] < rl[0] else "not seen" if sft[0] >= rl[1] else "open"
        assert judged.verdict == expected, judged
        assert f"{100 * sft[0]:.1f} %" in judged.measured.split(" against ")[0]
        assert f"{100 * rl[0]:.1f} %" in judged.measured.split(" against ")[1]
    with pytest.raises(ValueError, match="The control's numbers are of js_top_p, the others of js"):
        statements(group, {**group, "measure": "js_top_p"})


def test_few_problems_leave_all_open(group: dict[str, Any]) -> None:
    assert {judged.verdict for judged in statements({**group, "problems": 4}, group)} == {"open"}


def test_a_truncated_sparsity_has_its_exact_zeros_beside_it() -> None:
    table = hand_table.table()
    groups = {name: summarise(table, measure=name, resamples=20)["rl"]["all"] for name in ("js_top_p", "js")}
    for name, other in (("js_top_p", "js"), ("js", "js_top_p")):
        first = statements({**groups[name], "problems": 9}, second={**groups[other], "problems": 9})[0]
        columns = {name: first.measured, other: first.second}
        assert "exactly 0: 62.5 % (full JS there 0 on average, up to 0 nats)" in str(columns["js_top_p"])
        assert "exactly" not in str(columns["js"])
        assert {name: first.verdict, other: first.second_verdict} == {"js_top_p": "open", "js": "open"}
    assert statements(groups["js"])[0].second is None


def rows(*series: tuple[float, float, float, float], high: float = 0.0) -> list[dict[str, Any]]:
    return [
        {
            "quantiles": {
                name: {"value": value, "low": value - high, "high": value + high}
                for name, value in zip(PERCENTILES, values, strict=True)
            },
            "jaccard_final": {"value": number / (len(series) - 1)},
        }
        for number, values in enumerate(series)
    ]


@pytest.mark.parametrize(
    ("series", "words", "verdict", "fastest"),
    [
        ([(0, 0, 0, 0)] * 3, "unchanged: p50, p90, p95, p99", "not seen", "not seen"),
        ([(0, 0, 0.1 * n, 0.2 * n) for n in range(3)], "rising: p95, p99; unchanged: p50, p90", "seen", "seen"),
        ([(0.3 * n, 0, 0.1, 0.2) for n in range(3)], "rising: p50; unchanged: p90, p95, p99", "seen", "not seen"),
        ([(0, 0, 0.1, 0.3), (0, 0, 0.2, 0.2), (0, 0, 0.3, 0.4)], "falling: p99, beyond", "not seen", "seen"),
    ],
)
def test_percentiles_that_stay_are_not_said_to_rise(
    series: list[tuple[float, float, float, float]], words: str, verdict: str, fastest: str
) -> None:
    monotonic, fast, _ = evolution_statements(rows(*series))
    assert words in monotonic.measured
    assert (monotonic.verdict, fast.verdict) == (verdict, fastest)


def test_a_fall_within_its_interval_is_open() -> None:
    monotonic = evolution_statements(rows((0, 0, 0.1, 0.3), (0, 0, 0.2, 0.2), (0, 0, 0.3, 0.4), high=0.06))[0]
    assert (monotonic.verdict, "within the interval" in monotonic.measured) == ("open", True)


@pytest.mark.parametrize(
    ("overlaps", "verdict"),
    [
        ((0, 0, 0.02, 0.11, 0.95, 1), "seen"),
        ((0.96, 0.96, 0.96, 0.96, 0.96, 1), "not seen"),  # from near 1 to 1
        ((0, 0.5, 0.9, 0.95, 0.97, 1), "not seen"),  # steeply, then slowly
        ((0, 0.2, 0.1, 0.5, 0.9, 1), "not seen"),  # not rising everywhere
        ((1, 1, 1), "not seen"),
        ((0, None, 1), "open"),
    ],
)
def test_an_overlap_rises_from_low(overlaps: tuple[float | None, ...], verdict: str) -> None:
    series = rows(*[(0.0, 0.0, 0.0, 0.0)] * len(overlaps))
    for row, overlap in zip(series, overlaps, strict=True):
        row["jaccard_final"] = None if overlap is None else {"value": overlap}
    assert evolution_statements(series)[2].verdict == verdict
