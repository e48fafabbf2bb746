"""Numbers and tables of a comparison, from made-up models."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.made_comparison import SEEDS, everything, summary_of

from tokenshift.analysis.comparison.figures import final_accuracy
from tokenshift.analysis.comparison.report import (
    accuracy_table,
    comparison_csv,
    comparison_markdown,
    moved_table,
    remarks,
)
from tokenshift.analysis.statistics.crossed_design import crossed_difference
from tokenshift.analysis.statistics.paired import holm


def test_numbers_are_those_of_the_models() -> None:
    variants = ["dapo", "high_kl", "low_kl"]
    results = everything(variants)
    summary = summary_of(results, variants)
    cells = {(cell.variant, cell.seed): cell.correct["set 0"] for cell in results}
    high = summary["variants"][1]
    means = [cells["high_kl", seed].mean() for seed in SEEDS]
    assert high["accuracy"]["value"] == pytest.approx(np.mean(means))
    assert high["accuracy"]["sd"] == pytest.approx(np.std(means, ddof=1))
    level = crossed_difference([np.stack([cells["high_kl", seed] for seed in SEEDS])])
    assert (high["accuracy"]["low"], high["accuracy"]["high"]) == (level.low, level.high)
    expected = crossed_difference([np.stack([cells["high_kl", seed] - cells["dapo", seed] for seed in SEEDS])])
    found = high["accuracy"]["difference"]
    assert (found["difference"], found["low"], found["p_value"]) == pytest.approx(
        (expected.difference, expected.low, expected.p_value)
    )
    own = [row["accuracy"]["difference"] for row in summary["variants"][1:]]
    assert [each["p_holm"] for each in own] == pytest.approx(list(holm([each["p_value"] for each in own])))
    assert summary["variants"][0]["accuracy"]["difference"] is None
    near = [cell.shift["own"]["frac_near_zero"] for cell in results if cell.variant == "low_kl"]
    assert summary["variants"][2]["js_frac_near_zero"]["value"] == pytest.approx(np.mean(near))


def test_missing_models_and_verdicts_are_left_out_and_named() -> None:
    variants = ["dapo", "high_kl", "low_kl"]
    results = [cell for cell in everything(variants) if (cell.variant, cell.seed) not in (("high_kl", 2), ("dapo", 0))]
    results = [cell for cell in results if cell.variant != "low_kl"]
    results[0].correct["set 0"][3] = np.nan
    summary = summary_of(results, variants)
    assert summary["sets"] == {"set 0": 19}
    dapo, high, low = summary["variants"]
    assert (dapo["missing"], high["missing"], low["missing"]) == ([0], [2], [0, 1, 2])
    assert high["accuracy"]["difference"]["seeds"] == 1  # the seed that both have
    assert high["accuracy"]["difference"]["low"] is None
    assert low["accuracy"]["value"] is None
    _, rows = accuracy_table(summary)
    assert rows[2] == ["low_kl", "-", "-", "-", "-", "0"]
    said = "\n".join(remarks(summary, {"high_kl-seed2": "training: killed"}))
    assert "1 cell failed, and the table is without them:" in said
    assert "- high_kl-seed2, training: killed" in said
    assert "1 problems of set 0 are left out" in said
    assert "Recovery is not defined" not in said  # of low_kl there is no model
    assert comparison_markdown(summary, {}).count("| low_kl |") == 3
    assert final_accuracy(summary)


def test_table_in_the_publications_form() -> None:
    variants = ["dapo", "high_kl"]
    results = everything(variants, sets=2)
    summary = summary_of(results, variants)
    header, rows = accuracy_table(summary)
    assert header == [
        "variant",
        "set 0",
        "set 1",
        "mean",
        "difference to dapo",
        "p (Holm)",
        "minimum detectable",
        "seeds",
    ]
    row = summary["variants"][1]
    assert rows[1][3] == f"{100 * row['accuracy']['value']:.2f} ± {100 * row['accuracy']['sd']:.2f}"
    sets = [row["sets"][name]["value"] for name in ("set 0", "set 1")]
    assert row["accuracy"]["value"] == pytest.approx(np.mean(sets))
    assert moved_table(summary)[0][-3:] == ["recovery, %", "difference", "p (Holm)"]
    text = comparison_markdown(summary, {})
    assert "their mean counts each set alike" in text
    assert "20 problems of set 0, 30 problems of set 1" in text
    assert "beta: 0.0, normalize_weights: true" in text
    lines = comparison_csv(summary, results).splitlines()
    assert len(lines) == 1 + 6
    assert lines[0].startswith("variant,seed,accuracy,accuracy_set 0,accuracy_set 1,own_js_frac_near_zero")


def test_one_seed_has_no_interval() -> None:
    summary = summary_of(everything(["dapo", "high_kl"], [0]), ["dapo", "high_kl"], [0])
    _, rows = accuracy_table(summary)
    assert "±" not in rows[1][1]
    assert "[" not in rows[1][2]
    assert rows[1][3:5] == ["-", "-"]
    assert remarks(summary, {})[0].startswith("One seed: there is no interval")


def test_the_mean_of_graded_rewards_stands_beside_the_accuracy() -> None:
    variants = ["dapo", "high_kl"]
    plain = everything(variants)
    results = [
        replace(cell, reward={"set 0": 0.2 * cell.correct["set 0"] + 0.1}, reward_range=(0.1, 0.3), graded=True)
        for cell in plain
    ]
    summary = summary_of(results, variants)
    for row in summary["variants"]:
        assert row["reward"]["value"] == pytest.approx(0.2 * row["accuracy"]["value"] + 0.1)
    found, accuracy = (summary["variants"][1][name]["difference"] for name in ("reward", "accuracy"))
    assert found["difference"] == pytest.approx(0.2 * accuracy["difference"])
    assert found["p_holm"] == pytest.approx(accuracy["p_holm"])
    header, rows = accuracy_table(summary)
    assert header[-4:] == ["mean reward", "difference", "p (Holm)", "seeds"]
    assert all(len(row) == len(header) for row in rows)
    assert comparison_csv(summary, results).splitlines()[0].endswith(",reward")
    said = remarks(summary, {})
    assert said[0] == "Accuracy is the share of responses with accuracy_reward >= 1."
    assert said[1].startswith("No response counts as correct: the rewards lie between 0.1 and 0.3")
    summary["evaluation"] |= {"reward_func": "mine.score", "correct_threshold": 0.25}
    assert remarks(summary, {})[0] == "Accuracy is the share of responses with mine.score >= 0.25."
    assert not any("No response counts" in line for line in remarks(summary, {}))

    # rewards of 0 and 1 alone change nothing
    same = summary_of([replace(cell, reward=cell.correct, reward_range=(0.0, 1.0)) for cell in plain], variants)
    assert same == summary_of(plain, variants)
