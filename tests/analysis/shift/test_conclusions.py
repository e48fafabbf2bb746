"""The numbers that a page begins with are the table's, and what cannot be said is left out."""

from typing import Any

import pytest
from helpers import hand_table

from tokenshift.analysis import summarise
from tokenshift.analysis.shift.claims import statements
from tokenshift.analysis.shift.conclusions import shift_conclusions


@pytest.fixture(scope="module")
def kinds() -> dict[str, Any]:
    return summarise(hand_table.table(), measure="js", resamples=20)


def share(table: Any, keep: Any) -> str:
    js = table["js"].to_numpy()
    return f"{100 * float(keep(js).mean()):.1f} %"


def test_each_number_is_the_tables(kinds: dict[str, Any]) -> None:
    table = hand_table.table()
    found = shift_conclusions(kinds)
    near, high = (next(one for one in found if word in one.sentence) for word in ("near zero", "are high"))
    assert near.value == share(table, lambda js: js < 0.001)
    assert f"of {len(table):,} tokens" in near.sentence
    assert high.value == share(table, lambda js: js > 0.1)
    assert all(one.sentence.endswith(".") and "\n" not in one.sentence for one in found)


def with_share(group: dict[str, Any], name: str, label: str, *numbers: float | None) -> dict[str, Any]:
    listed = {key: list(values) for key, values in group["means"][name].items()}
    for key, number in zip(("value", "low", "high"), numbers, strict=True):
        listed[key][listed["labels"].index(label)] = number
    return {**group, "means": {**group["means"], name: listed}}


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((0.9, 0.8, 1.0), "re-ranks"),
        ((0.2, 0.1, 0.4), "brings in"),
        ((0.6, 0.4, 0.8), None),
        ((0.9, None, None), None),
    ],
)
def test_what_high_tokens_mean_needs_the_whole_interval(
    kinds: dict[str, Any], numbers: tuple[float | None, ...], words: str | None
) -> None:
    group = with_share(kinds["rl"]["all"], "rank_high", "<= 3", *numbers)
    last = shift_conclusions({"rl": {"all": group}})[-1]
    assert last.value == f"{100 * (numbers[0] or 0):.1f} %"
    assert all((word == words) == (word in last.sentence) for word in ("re-ranks", "brings in"))


def test_accuracies_of_both_models_and_of_none(kinds: dict[str, Any]) -> None:
    group = kinds["rl"]["all"]
    rl, base = (with_share(group, "response", "accuracy", *numbers) for numbers in ((0.9, 0.8, 1), (0.5, 0.4, 0.6)))
    first = shift_conclusions({"rl": {"all": rl}, "base": {"all": base}})[0]
    assert (first.value, first.interval) == ("90.0 %", "80.0 to 100.0")
    assert "of the base model's 50.0 % (40.0 to 60.0)" in first.sentence
    unjudged = with_share(group, "response", "accuracy", None, None, None)
    assert not any("correct" in one.sentence for one in shift_conclusions({"rl": {"all": unjudged}}))


def test_an_interval_without_width_is_no_certainty(kinds: dict[str, Any]) -> None:
    """64 right answers of 64 leave 5.6 % of wrong ones possible (Clopper and Pearson), whatever a bootstrap says."""
    group = kinds["rl"]["all"]
    rl, base = (with_share(group, "response", "accuracy", *[value] * 3) for value in (1.0, 0.0))
    first = shift_conclusions({"rl": {"all": rl}, "base": {"all": base}})[0]
    assert (first.value, first.interval) == ("100.0 %", "all problems alike")
    assert "of the base model's 0.0 % (all problems alike)." in first.sentence


def test_the_place_is_that_of_the_statement(kinds: dict[str, Any]) -> None:
    group = kinds["rl"]["all"]
    value = [0.01 * (place + 1) for place in range(20)]
    low, high = ([factor * number for number in value] for factor in (0.9, 1.1))
    low[7] = high[7] = None  # a bin without an interval counts in neither
    means = {**group["means"]["position_relative"], "labels": [str(place) for place in range(20)]}
    means |= {"value": value, "low": low, "high": high}
    expected = sum(value[place] for place in range(5, 15) if place != 7) / 9
    group = {**group, "means": {**group["means"], "position_relative": means}}
    (place,) = (one for one in shift_conclusions({"rl": {"all": group}}) if "mean JS in the first" in one.sentence)
    assert f"it is {expected:#.2g} in the middle" in place.sentence
    (said,) = {one.measured for one in statements(group) if "JS is high at the start" in one.text}
    assert f"middle {expected:.3g} [" in said
