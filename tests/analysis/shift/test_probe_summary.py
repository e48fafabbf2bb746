"""The probe's numbers against a plain loop over rows, and against a training's own sums of the same tokens."""

import statistics
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from accelerate import Accelerator
from helpers.random_table import random_rows

from tokenshift.analysis.shift.probe_summary import shift_summary
from tokenshift.analysis.shift.summary import labelled_estimate, summarise
from tokenshift.trainer.weighting.metrics import ShiftSums

TABLES = {
    "random": random_rows(0, [7, 40, 1, 333, 20, 19]),
    "one token": random_rows(1, [1]),
    "nothing high": random_rows(2, [30, 30], largest=0.05),
    "nothing judged": random_rows(3, [30, 5], judged="none"),
    "short": random_rows(4, [2, 3]),
}


# in float32, as the table has them
LOWER_ENDS = [
    (float(np.float32(edge)), name)
    for edge, name in ((0, "near_zero"), (1e-3, "low"), (0.01, "middle"), (0.1, "high"))
]


def by_loop(table: pa.Table) -> dict[str, float]:
    """The means of `shift_summary`, row by row; quantiles are left out."""
    rows: list[dict[str, Any]] = table.to_pylist()
    values: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        values.setdefault(name, []).append(float(value))

    for row in rows:
        js = row["js"]
        bin_ = next(name for edge, name in reversed(LOWER_ENDS) if js >= edge)
        high = js > LOWER_ENDS[-1][0]
        add("mean", js)
        add(f"entropy_policy_{bin_}", row["entropy_rl"])
        add(f"entropy_reference_{bin_}", row["entropy_base"])
        add(f"position_{row['position'] * 20 // row['length']:02d}", js)
        for prefix in ("", "high/") if high else ("",):
            for k in (1, 2, 3, 5, 10):
                add(f"{prefix}overlap_{k}", row[f"overlap_{k}"])
            for limit in (1, 3):
                add(f"{prefix}rl_top1_rank_{limit}", row["rl_top1_rank_base"] <= limit)
            add(f"{prefix}rl_top1_improbable", row["rl_top1_prob_base"] < 0.01)
        if row["position"] == 0:
            add("length", row["length"])
            if row["correct"] is not None:
                add("accuracy", row["correct"])
    numbers = {name: statistics.fmean(of_name) for name, of_name in values.items()}
    return numbers | {"tokens": len(rows), "responses": len(values["length"])}


@pytest.mark.parametrize("name", TABLES)
def test_every_mean_is_that_of_a_loop(name: str) -> None:
    numbers = shift_summary(TABLES[name])
    quantiles = {"p50", "p90", "p95", "p99", "max", "frac_near_zero", "frac_high"}
    found = {key: value for key, value in numbers.items() if key not in quantiles and not key.startswith("top_p/")}
    expected = by_loop(TABLES[name])
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-9), key
    assert any(key.startswith("high/") for key in numbers) == (numbers["frac_high"] > 0)
    assert ("accuracy" in numbers) == (name not in ("one token", "nothing judged"))


@pytest.mark.parametrize("name", TABLES)
def test_truncated_numbers_are_those_of_the_truncated_column_and_come_first(name: str) -> None:
    table = TABLES[name]
    index = table.column_names.index("js")
    numbers, swapped = shift_summary(table), shift_summary(table.set_column(index, "js", table["js_top_p"]))
    plain = {key: value for key, value in swapped.items() if not key.startswith("top_p/")}
    truncated = {key.removeprefix("top_p/"): value for key, value in numbers.items() if key.startswith("top_p/")}
    assert truncated.pop("frac_exact_zero") == 0
    assert truncated == {key: plain[key] for key in truncated}
    rest = plain.keys() - truncated.keys()
    measured = ("mean", "p", "max", "frac", "entropy", "position", "high")
    assert not [key for key in rest if key.startswith(measured)], "the rest does not depend on the measure"
    assert all(key.startswith("top_p/") for key in list(numbers)[: len(truncated) + 1])


def test_exact_zeros_with_the_full_js_there() -> None:
    table = TABLES["random"]
    values = table["js_top_p"].to_numpy().copy()
    values[::4] = 0
    numbers = shift_summary(table.set_column(table.column_names.index("js_top_p"), "js_top_p", pa.array(values)))
    full = table["js"].to_numpy()[::4].astype(float)
    assert numbers["top_p/frac_exact_zero"] == 105 / 420
    assert numbers["top_p/full_js_at_exact_zero_mean"] == pytest.approx(full.mean())
    assert numbers["top_p/full_js_at_exact_zero_max"] == full.max()


@pytest.mark.parametrize("name", TABLES)
def test_a_training_and_a_summary_say_the_same(name: str) -> None:
    """Three readers of one definition: the probe, the online sums in two micro-steps, and `summarise`."""
    table = TABLES[name]
    numbers = shift_summary(table)
    sums = ShiftSums()
    for part in (table.slice(0, 11), table.slice(11)):
        js, reference, policy, position, length = (
            torch.tensor(part[column].to_numpy())
            for column in ("js", "entropy_base", "entropy_rl", "position", "length")
        )
        sums.add(
            js=js,
            entropy_reference=reference,
            entropy_policy=policy,
            position=position.long(),
            length=length.long(),
        )
    online = sums.metrics(Accelerator(cpu=True))
    logged = {key.removeprefix("divergence_").replace("/", "_", 1): value for key, value in online.items()}
    assert logged.keys() == {key for key in numbers if key.startswith(("entropy_", "position_"))}
    for key, value in logged.items():
        assert numbers[key] == pytest.approx(value, rel=1e-12), key
    means = summarise(table, measure="js", resamples=2)["rl"]["all"]["means"]
    for model, column in (("policy", "rl"), ("reference", "base")):
        for bin_ in ("near_zero", "low", "middle", "high"):
            estimate = labelled_estimate(means[f"entropy_{column}"], bin_)
            assert (estimate and estimate["value"]) == numbers.get(f"entropy_{model}_{bin_}")
    for number, mean in enumerate(means["position_relative"]["value"]):
        assert mean == numbers.get(f"position_{number:02d}")
    assert labelled_estimate(means["rank_high"], "<= 3") is None or "high/rl_top1_rank_3" in numbers
