"""The numbers that a cross-sampling's page begins with, against counts of a made sweep."""

import pyarrow as pa
import pytest
from helpers.made_sweep import made_sweep, sweep_rows

from tokenshift.analysis.cross_sampling.conclusions import cross_conclusions
from tokenshift.analysis.cross_sampling.recovery import recovery_summary
from tokenshift.analysis.cross_sampling.sweep import SweptPolicy
from tokenshift.analysis.cross_sampling.sweep_run import SWEEP_SCHEMA
from tokenshift.analysis.report.conclusions import Conclusion


def conclusions(table: pa.Table) -> list[Conclusion]:
    return cross_conclusions(recovery_summary(table, 200))


def test_gain_tokens_needed_and_control() -> None:
    # of 24 problems the base has 4 right, RL 20; js_top_p all 20 with 2 of 20 tokens, its control 8 with as many
    gain, needed, control = conclusions(made_sweep(20, 8))
    assert gain.value == "+66.7 points"
    assert "83.3 % of its responses to 24 problems are correct, 16.7 % of the base model's." in gain.sentence
    assert needed.value == "9 %"  # 90 % of the way from none to 10 % of the tokens
    assert "RL model's where js_top_p is highest, bring 90 % of the gain" in needed.sentence
    assert control.value == "25.0 %"
    assert control.interval
    assert "100.0 % (100.0 to 100.0) with 10 % where js_top_p is highest" in control.sentence


def test_what_is_not_reached_is_told() -> None:
    _, most, _ = conclusions(made_sweep(12, 8))
    assert most.value == "50.0 %"
    assert most.sentence.startswith("of the gain comes back at most, with 10 % of the tokens in the base model's")


@pytest.mark.parametrize("right", [4, 2])
def test_without_a_gain_nothing_is_recovered(right: int) -> None:
    rows = [*sweep_rows(SweptPolicy("forward", "none"), 4, 0), *sweep_rows(SweptPolicy("forward", "all"), right, 4)]
    (gain,) = conclusions(pa.Table.from_pylist(rows, schema=SWEEP_SCHEMA))
    assert gain.sentence.endswith("there is nothing to recover.")


def test_backward_says_what_is_gone() -> None:
    rows = sweep_rows(SweptPolicy("backward", "none"), 20, 0)
    rows += sweep_rows(SweptPolicy("backward", "all"), 4, 4)
    rows += sweep_rows(SweptPolicy("backward", "js_top_p", 0.1, 0.1), 4, 1)
    _, needed = conclusions(pa.Table.from_pylist(rows, schema=SWEEP_SCHEMA))
    assert needed.value == "4.5 %"
    assert "in the RL model's responses, replaced by the base model's" in needed.sentence
    assert "take 90 % of the gain away" in needed.sentence
