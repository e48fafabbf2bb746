"""Numbers and tables of a comparison, from made-up models."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.made_comparison import SEEDS, everything, learned, summary_of

from tokenshift.analysis.comparison.figures import final_accuracy
from tokenshift.analysis.comparison.report import (
    accuracy_table,
    comparison_csv,
    comparison_markdown,
    moved_table,
    outcome_table,
    remarks,
    verdict_lines,
)
from tokenshift.analysis.comparison.summary import comparison_summary
from tokenshift.analysis.statistics.crossed_design import crossed_difference, seed_difference
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
    near = [cell.shift["own"]["js_frac_near_zero"] for cell in results if cell.variant == "low_kl"]
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
    moved, moved_rows = moved_table(summary)
    assert moved[-3:] == ["recovery, %", "difference", "p (Holm)"]
    assert [name for name in moved if name.startswith("full JS")] == ["full JS: near zero, %", "full JS: p99"]
    assert moved_rows[1][moved.index("JS p99")].startswith(f"{row['js_top_p_p99']['value']:.4f}")
    assert moved_rows[1][moved.index("full JS: p99")].startswith(f"{row['js_p99']['value']:.4f}")
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


def test_the_outcome_is_the_area_under_the_learning_curve_unless_another_is_asked_for() -> None:
    variants = ["dapo", "high_kl"]
    results = learned(everything(variants), {"high_kl": 0.1})
    summary = summary_of(results, variants)
    assert summary["outcome"] == {
        "name": "learning_area",
        "asked": "learning_area",
        "rewards": ["accuracy_reward"],
        "updates": [48],
    }
    areas = {(cell.variant, cell.seed): cell.learning.area for cell in results if cell.learning is not None}
    gaps = np.array([areas["high_kl", seed] - areas["dapo", seed] for seed in SEEDS])
    entry, expected = summary["variants"][1]["learning_area"], seed_difference(gaps)
    assert entry["by_seed"] == {str(seed): areas["high_kl", seed] for seed in SEEDS}
    assert (entry["difference"]["low"], entry["difference"]["p_value"]) == (expected.low, expected.p_value)
    header, rows = outcome_table(summary, "learning_area")
    assert header[1] == "area under the learning curve"
    assert rows[1][1] == f"{100 * entry['value']:.2f} ± {100 * entry['sd']:.2f}"
    text = comparison_markdown(summary, {})
    assert text.index("## Area under the learning curve") < text.index("## Accuracy")
    assert "The mean over updates of `accuracy_reward`" in text
    lines = comparison_csv(summary, results).splitlines()
    assert lines[0].endswith(",learning_area,held_out_area")
    assert [float(line.split(",")[-2]) for line in lines[1:]] == [
        cell.learning.area for cell in results if cell.learning
    ]

    final = comparison_summary(results, variants, "dapo", SEEDS, outcome="final_accuracy")
    assert final["outcome"]["name"] == "final_accuracy"
    assert final["variants"] == summary["variants"]
    held_out = comparison_summary(results, variants, "dapo", SEEDS, outcome="held_out_area")
    assert held_out["variants"][0]["held_out_area"]["value"] == pytest.approx(0.5 + 0.005 * 32)
    with pytest.raises(ValueError, match="outcome='median' is not known; choose one of learning_area"):
        comparison_summary(results, variants, "dapo", SEEDS, outcome="median")


def test_areas_are_in_points_of_accuracy_whatever_the_rewards_values_are() -> None:
    variants = ["dapo", "high_kl"]
    plain = learned(everything(variants), {"high_kl": 0.1})
    expected = summary_of(plain, variants)

    def rewarded(wrong: float, right: float, reward: str, seen: list[frozenset[float] | None]) -> dict[str, Any]:
        cells = []
        for index, cell in enumerate(plain):
            assert cell.learning is not None
            values = [wrong + (right - wrong) * value for value in cell.learning.values]
            curve = replace(cell.learning, reward=reward, values=values, seen=seen[index % len(seen)])
            cells.append(replace(cell, learning=curve))
        return summary_of(cells, variants)

    for wrong, right, reward, seen in (
        (-1.0, 1.0, "signed_accuracy_reward", [None]),  # logs of before do not name the values
        (-1.0, 1.0, "signed_accuracy_reward", [frozenset({-1.0, 1.0})]),
        (-1.0, 1.0, "mine", [frozenset({-1.0, 1.0}), frozenset({-1.0})]),  # one training was never right
        (0.0, 10.0, "mine", [frozenset({0.0}), frozenset({10.0})]),
        (0.1, 0.9, "accuracy_reward", [frozenset({0.1, 0.9})]),  # a user's function of a shipped one's name
    ):
        summary = rewarded(wrong, right, reward, seen)
        assert summary["reward_levels"] == {reward: [wrong, right]}
        for row, plain_row in zip(summary["variants"], expected["variants"], strict=True):
            entry, plain_entry = row["learning_area"], plain_row["learning_area"]
            assert list(entry["by_seed"].values()) == pytest.approx(list(plain_entry["by_seed"].values()))
            assert entry["low"] == pytest.approx(plain_entry["low"])
        difference, same = (one["variants"][1]["learning_area"]["difference"] for one in (summary, expected))
        assert difference["difference"] == pytest.approx(same["difference"])
        assert f"`{reward}`, the share with a reward of {right:g} and not {wrong:g} of the completions" in (
            comparison_markdown(summary, {})
        )
    for seen in ([None], [frozenset({0.0, 0.5}), frozenset({0.0, 1.0})], [frozenset({0.0, 2.0}), None]):
        graded = rewarded(0.0, 2.0, "mine", seen)  # more than two values, or not known: its mean
        assert graded["reward_levels"] == {"mine": None}
        means = [2 * value for value in expected["variants"][1]["learning_area"]["by_seed"].values()]
        assert list(graded["variants"][1]["learning_area"]["by_seed"].values()) == pytest.approx(means)
        assert "`mine`, the mean reward of the completions" in comparison_markdown(graded, {})


def test_the_shipped_accuracies_can_be_compared() -> None:
    """An arm with rewards of -1 and 1 beside one with 0 and 1: both areas are shares of right completions."""
    variants = ["dapo", "high_kl"]
    plain = learned(everything(variants))
    signed = []
    for cell in plain:
        assert cell.learning is not None
        curve = replace(
            cell.learning, reward="signed_accuracy_reward", values=[2 * value - 1 for value in cell.learning.values]
        )
        signed.append(replace(cell, learning=curve) if cell.variant == "dapo" else cell)
    mixed, expected = summary_of(signed, variants), summary_of(plain, variants)
    assert mixed["outcome"]["name"] == "learning_area"
    assert mixed["outcome"]["rewards"] == ["accuracy_reward", "signed_accuracy_reward"]
    difference, same = (one["variants"][1]["learning_area"]["difference"] for one in (mixed, expected))
    assert difference["difference"] == pytest.approx(same["difference"])
    words = "the share with a reward of 1 and not 0 or 1 and not -1 of the completions"
    assert words in comparison_markdown(mixed, {})


def test_without_a_learning_curve_or_with_different_rewards_the_outcome_is_the_final_accuracy() -> None:
    variants = ["dapo", "high_kl"]
    plain = everything(variants)
    assert "no training logged a reward" in "\n".join(remarks(summary_of(plain, variants), {}))
    mixed = [*learned(plain[:1]), *learned(plain[1:], reward="overlong")]
    summary = summary_of(mixed, variants)
    assert summary["outcome"]["name"] == "final_accuracy"
    assert "the trainings' rewards differ (accuracy_reward, overlong)" in "\n".join(remarks(summary, {}))
    assert "learning_area" not in summary["variants"][0]
    some = summary_of(learned(plain[:4]) + plain[4:], variants)  # the last seed's cells have none
    assert some["variants"][1]["learning_area"]["by_seed"]["2"] is None
    assert some["variants"][1]["learning_area"]["difference"]["seeds"] == 2
    uneven = summary_of([*learned(plain[:1], end=24), *learned(plain[1:])], variants)
    assert "The trainings have different numbers of updates (24, 48)" in "\n".join(remarks(uneven, {}))


def test_intervals_of_few_seeds_say_how_often_they_hold() -> None:
    """By the worst of the simulated pairs, a variant that jumps beside a baseline that never does."""
    variants = ["dapo", "high_kl"]
    summary = summary_of(learned(everything(variants)), variants)
    final, area = (summary["variants"][1][name]["difference"] for name in ("accuracy", "learning_area"))
    assert final["coverage"] == pytest.approx(0.829, abs=0.006)
    assert area["coverage"] == pytest.approx(0.940, abs=0.004)
    for table in (accuracy_table(summary), outcome_table(summary, "learning_area")):
        assert table[1][1][2].split("[")[1].startswith("≈ ")
    lines = [line for line in remarks(summary, {}) if line.startswith("≈")]
    for line, words, difference, enough in zip(
        lines, ("area under the learning curve", "final accuracy"), (area, final), (25, 100), strict=True
    ):
        held = f"{100 * difference['coverage']:.1f} % of 20,000"
        assert f"with 3 seeds, 95 % intervals of the {words} held the true difference in {held}" in line
        assert line.endswith(f"{enough} seeds hold it in 94 %.")


def test_intervals_of_enough_seeds_are_not_marked() -> None:
    variants, seeds = ["dapo", "high_kl"], list(range(25))
    summary = summary_of(learned(everything(variants, seeds)), variants, seeds)
    assert summary["variants"][1]["learning_area"]["difference"]["coverage"] is None
    assert "≈" not in outcome_table(summary, "learning_area")[1][1][2]


def test_seeds_of_the_replication_are_never_pooled_and_decide() -> None:
    variants, fresh = ["dapo", "better", "gone", "worse"], [10, 11, 12, 13]
    first = learned(everything(variants), {"better": 0.2, "gone": 0.2})
    again = learned(everything(variants, fresh), {"better": 0.2, "worse": -0.2})
    summary = summary_of(first + again, variants, replication=fresh)
    apart = [summary_of(first, variants), summary_of(again, variants, fresh)]
    for part, alone in zip((summary, summary["replication"]), apart, strict=True):
        assert part["variants"] == alone["variants"]
        assert part["seeds"] == alone["seeds"]
    decided = {line["variant"]: (line["seeds"], line["verdict"]) for line in summary["verdicts"]}
    assert decided == {
        "better": ("replication", "higher"),
        "gone": ("replication", "not shown"),
        "worse": ("replication", "lower"),
    }
    first_alone = {line["variant"]: line["verdict"] for line in apart[0]["verdicts"]}
    assert first_alone == {"better": "higher", "gone": "higher", "worse": "not shown"}
    lines = verdict_lines(summary)
    assert lines[0].startswith("better: higher than dapo (+")
    assert "replication seeds; discovery seeds: +" in lines[1]
    text = comparison_markdown(summary, {})
    assert "never pooled; the verdict is that of the replication seeds" in text
    assert "## Accuracy, replication seeds" in text
    header, rows = outcome_table(summary, "learning_area")
    assert all(len(row) == len(header) for row in rows)
    lines = comparison_csv(summary, first + again).splitlines()
    assert [line.rsplit(",", 1)[1] for line in lines] == ["seed_set", *["discovery"] * 12, *["replication"] * 16]
    with pytest.raises(ValueError, match="The seed 2 is in seeds and in replication_seeds"):
        comparison_summary(first, variants, "dapo", SEEDS, [2, 3])


def test_a_replication_that_is_not_made_yet_decides_nothing() -> None:
    variants = ["dapo", "high_kl"]
    summary = summary_of(learned(everything(variants), {"high_kl": 0.2}), variants, replication=[10])
    (verdict,) = summary["verdicts"]
    assert (verdict["seeds"], verdict["verdict"], verdict["replication"]) == ("replication", "no interval", None)
    assert comparison_markdown(summary, {})


def test_the_measure_that_comes_first_is_chosen() -> None:
    variants = ["dapo", "high_kl"]
    results = everything(variants)
    assert comparison_summary(results, variants, "dapo", SEEDS)["measure"] == "js_top_p"
    whole = {**summary_of(results, variants), **comparison_summary(results, variants, "dapo", SEEDS, measure="js")}
    header, rows = moved_table(whole)
    assert "JS at top-p: p99" in header
    assert rows[0][header.index("JS p99")].startswith(f"{whole['variants'][0]['js_p99']['value']:.4f}")
    assert "Full JS between the model before and after training" in comparison_markdown(whole, {})
    older = [
        replace(cell, shift={kind: {name: numbers[name] for name in numbers if "top_p" not in name}})
        for cell in results
        for kind, numbers in cell.shift.items()
        if kind == "own"
    ]
    summary = comparison_summary(older, variants, "dapo", SEEDS)
    assert summary["measure"] == "js"
    assert not any("top-p" in name for name in moved_table({**summary_of(older, variants), **summary})[0])
    with pytest.raises(ValueError, match="measure='kl' is not known; choose js_top_p or js"):
        comparison_summary(results, variants, "dapo", SEEDS, measure="kl")
