"""The numbers that a comparison's page begins with, and the page."""

import re
from pathlib import Path

import numpy as np
import pytest
from helpers.made_comparison import everything, learned, made, summary_of

from tokenshift.analysis.comparison.conclusions import MOST_VARIANTS, comparison_conclusions
from tokenshift.analysis.comparison.report import WRITTEN, write_comparison

VARIANTS = ["dapo", "better", "same", "worse", "more", "most"]
GAINS = {"better": 0.1, "worse": -0.2, "more": 0.001, "most": 0.002}


def test_the_baseline_then_the_largest_differences_that_are_shown() -> None:
    results = learned(everything(VARIANTS, list(range(6))), GAINS)
    summary = summary_of(results, VARIANTS, list(range(6)))
    first, *others = comparison_conclusions(summary)
    areas = {name: [cell.learning.area for cell in results if cell.variant == name] for name in VARIANTS}  # type: ignore[union-attr]
    assert first.value == f"{100 * np.mean(areas['dapo']):.1f} %"
    assert "area under the learning curve of dapo, over 6 seeds" in first.sentence
    assert len(others) == MOST_VARIANTS
    assert [re.search(r"of (\w+) to dapo", one.sentence)[1] for one in others[:2]] == ["worse", "better"]  # type: ignore[index]
    assert others[0].value == f"{100 * (np.mean(areas['worse']) - np.mean(areas['dapo'])):+.1f} points"
    assert ": lower, p " in others[0].sentence
    assert ": higher, p " in others[1].sentence
    shown = ["not shown" not in one.sentence for one in others]
    assert shown == sorted(shown, reverse=True)
    verdicts = {one["variant"]: one["verdict"] for one in summary["verdicts"]}
    assert sum(shown) == min(MOST_VARIANTS, sum(verdict != "not shown" for verdict in verdicts.values()))


def test_one_seed_has_no_interval() -> None:
    results = learned([made(name, 0) for name in VARIANTS[:2]])
    first, other = comparison_conclusions(summary_of(results, VARIANTS[:2], [0]))
    assert "over 1 seed." in first.sentence
    assert other.interval == ""
    assert other.sentence.endswith("of one seed each.")


@pytest.mark.parametrize("replication", [[], [7, 8]])
def test_the_page_begins_with_them(tmp_path: Path, replication: list[int]) -> None:
    results = learned(everything(VARIANTS[:3], [0, 1, *replication]), GAINS)
    summary = summary_of(results, VARIANTS[:3], [0, 1], replication)
    write_comparison(tmp_path, summary, results, {"better-seed9": "<b>why</b>"})
    assert {path.name for path in tmp_path.iterdir()} == set(WRITTEN)
    page = (tmp_path / "comparison.html").read_text()
    shown = re.findall(r"<li><strong>(.*?)</strong>.*?<span>(.*?)</span>", page)
    assert [value for value, _ in shown] == [one.value for one in comparison_conclusions(summary)]
    assert "<b>why" not in page
    assert page.count("<figure") == len(list((tmp_path / "figures").glob("*.svg")))
    assert ("by the replication seeds" in shown[1][1]) == bool(replication)
    assert "`" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert page.index('class="conclusions"') < page.index("Verdicts")
