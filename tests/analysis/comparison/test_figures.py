"""Figures of a comparison, from made-up models."""

import pytest
from helpers.made_comparison import MANY, everything, learned, summary_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tokenshift.analysis.comparison.figures import final_accuracy, learning_curves, shift, variant_figures


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


def test_figures_of_two_sets_of_seeds_and_of_doses() -> None:
    variants, fresh = ["dapo", "low", "some", "much"], [10, 11, 12, 13]
    results = learned(everything(variants) + everything(variants, fresh), {"some": 0.1, "much": 0.2})
    summary = summary_of(results, variants, replication=fresh)
    doses = {"some": 10.0, "low": -100.0, "much": 1000.0}
    summary["doses"] = [{"axis": "divergence_alpha", "of": "sigmoid, k3 against old, s = 1", "doses": doses}]
    figures = variant_figures(summary, results)
    assert list(figures)[:3] == ["learning_area", "final_accuracy", "dose"]
    for figure in figures.values():
        inside(figure)
    alone = learning_curves(summary, [cell for cell in results if cell.seed not in fresh], "rewards")
    for one, other in zip(figures["training_reward"].axes, alone.axes, strict=True):  # it is of the discovery
        assert one.get_ylim() == other.get_ylim()
    for name in ("training_reward", "probed_accuracy", "shift"):
        assert "3 seeds of the discovery" in figures[name].get_suptitle()
    left, right = figures["learning_area"].axes
    circles = [line for line in left.lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in circles] == [3] * 4 + [4] * 4  # type: ignore[arg-type]
    assert [line.get_marker() for line in right.lines if line.get_marker() != "None"] == ["D"] * 4 + ["s"] * 4
    level, gain = figures["dose"].axes
    assert [label.get_text() for label in level.get_xticklabels()] == ["-100", "10", "1000"]
    for panel, key in ((level, "value"), (gain, "difference")):
        for container, part in zip(panel.containers, (summary, summary["replication"]), strict=True):
            rows = {row["variant"]: row["learning_area"] for row in part["variants"]}
            entries = [rows[name] if key == "value" else rows[name]["difference"] for name in ("low", "some", "much")]
            assert list(container[0].get_ydata()) == pytest.approx([100 * entry[key] for entry in entries])
