"""Numbers, tables and figures of a comparison, from made-up models."""

from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tokenshift.analysis.comparison.figures import final_accuracy, learning_curves, shift, variant_figures
from tokenshift.analysis.comparison.report import (
    accuracy_table,
    comparison_csv,
    comparison_markdown,
    moved_table,
    remarks,
)
from tokenshift.analysis.comparison.results import SHIFT, CellResult
from tokenshift.analysis.comparison.summary import comparison_summary
from tokenshift.analysis.statistics.crossed_design import crossed_difference
from tokenshift.analysis.statistics.paired import holm

SEEDS = [0, 1, 2]
MANY = ["dapo", *(f"variant_of_a_long_name_{place}" for place in range(12))]


def made(variant: str, seed: int, gain: float = 0.0, sets: int = 1) -> CellResult:
    rng = np.random.default_rng([seed, *variant.encode()])
    rewards = [(step, 0.5 + 0.004 * step + 0.05 * rng.normal()) for step in range(4, 65, 4)]
    kinds = {
        kind: {name: float(rng.random() * (0.9 if name.startswith("frac") else 0.2)) for name in SHIFT}
        for kind in ("own", "fixed")
    }
    return CellResult(
        variant,
        seed,
        {f"set {place}": rng.binomial(4, 0.6 + gain, 20 + 10 * place) / 4 for place in range(sets)},
        kinds,
        {
            "value": float(rng.random()),
            "low": 0.0,
            "high": 1.0,
            "intervened": 0.02,
            "effective": 0.01,
            "accuracy": 0.8,
        },
        rewards,
        [(step, 0.5 + 0.005 * step) for step in range(0, 65, 16)],
    )


def summary_of(results: list[CellResult], variants: list[str], seeds: list[int] = SEEDS) -> dict[str, Any]:
    found = comparison_summary(results, variants, "dapo", seeds)
    return {
        "name": "mine",
        **found,
        "evaluation": {"datasets": ["pocket"], "top_p": 1.0},
        "recovery": {"budgets": [0.02]},
        "distinguishing": {name: {"beta": 0.0, "normalize_weights": True} for name in variants},
    }


def everything(variants: list[str] = MANY, seeds: list[int] = SEEDS, sets: int = 1) -> list[CellResult]:
    return [made(name, seed, 0.3 * (place == 1), sets) for seed in seeds for place, name in enumerate(variants)]


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


def inside(figure: Figure) -> None:
    """No text lies outside of the figure, and none of a panel's titles on another's."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    whole = figure.bbox
    titles = []
    for axes in figure.axes:
        if not axes.get_visible():
            continue
        for text in [axes.title, axes.xaxis.label, *axes.get_yticklabels()]:
            box = text.get_window_extent(renderer)
            if text.get_text() and text.get_visible():
                assert box.x0 >= whole.x0 - 1
                assert box.x1 <= whole.x1 + 1
        if axes.title.get_text():
            titles.append(axes.title.get_window_extent(renderer))
    for place, one in enumerate(titles):
        assert not any(one.overlaps(other) for other in titles[:place])


def test_figures_of_many_variants_are_readable() -> None:
    results = everything()
    summary = summary_of(results, MANY)
    figures = variant_figures(summary, results)
    assert list(figures) == ["final_accuracy", "training_reward", "probed_accuracy", "shift"]
    for figure in figures.values():
        inside(figure)
    left, right = figures["final_accuracy"].axes
    circles = [line for line in left.lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in circles] == [3] * 13  # type: ignore[arg-type]
    points = circles[1].get_xdata()
    assert sorted(points) == pytest.approx(  # type: ignore[arg-type]
        sorted(100 * value for value in summary["variants"][1]["accuracy"]["by_seed"].values())
    )
    assert not left.patches  # points, not bars
    assert len(right.collections) == 13
    panels = [axes for axes in figures["training_reward"].axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels][:1] == ["variant_of_a_long_name_0"]
    assert len(panels) == 12
    assert all(len(axes.lines) == 2 and len(axes.collections) == 2 for axes in panels)


def test_figures_of_little() -> None:
    results = everything(["dapo", "high_kl"], [0])
    summary = summary_of(results, ["dapo", "high_kl"], [0])
    for figure in (final_accuracy(summary), shift(summary), learning_curves(summary, results[:1], "rewards")):
        inside(figure)
    empty = summary_of([], ["dapo", "high_kl"])
    inside(final_accuracy(empty))
