"""A row of the table over settings against the rows of its table of tokens."""

import numpy as np
import pytest
from helpers.random_table import random_rows

from tokenshift.analysis.shift.robustness import ROBUSTNESS_COLUMNS, robustness_markdown, robustness_row

SETTING = {"trajectories": "rl", "temperature": 1.0}


@pytest.mark.parametrize("measure", ["js", "js_top_p"])
def test_shares_are_those_of_the_measured_column(measure: str) -> None:
    table = random_rows(0, [20, 31, 7], judged="all")
    row = robustness_row(table, {**SETTING, "top_p": 0.7}, measure, 10)
    js, overlap, rank = (table[name].to_numpy() for name in (measure, "overlap_2", "rl_top1_rank_base"))
    high = js > np.float32(0.1)
    assert row["tokens"] == 58
    assert row["near_zero"]["value"] == pytest.approx((js < np.float32(1e-3)).mean())
    assert row["high"]["value"] == pytest.approx(high.mean())
    assert row["overlap_2"]["value"] == pytest.approx(overlap[high].mean())
    assert row["rank_3"]["value"] == pytest.approx((rank[high] <= 3).mean())
    assert row["improbable"]["n"] == high.sum()
    verdicts = [row["correct"] for row in table.to_pylist() if row["position"] == 0]
    assert row["accuracy"]["value"] == pytest.approx(np.mean(verdicts))
    assert row["label"] == "rl, T 1, top-p 0.7"
    assert row["cells"][2:4] == ["0.7", "58"]
    assert (
        row["cells"][6] == f"{100 * high.mean():.1f} [{100 * row['high']['low']:.1f}, {100 * row['high']['high']:.1f}]"
    )


def test_nothing_high_and_nothing_judged() -> None:
    row = robustness_row(random_rows(1, [5], largest=0.01, judged="none"), {**SETTING, "top_p": 1.0}, "js", 5)
    assert row["accuracy"] is row["overlap_2"] is row["rank_3"] is row["improbable"] is None
    assert row["label"] == "rl, T 1, whole"
    assert row["cells"][4] == row["cells"][-1] == "-"
    lines = robustness_markdown([row]).splitlines()
    assert len(lines) == 3
    assert all(heading in lines[0] for heading in ROBUSTNESS_COLUMNS)
