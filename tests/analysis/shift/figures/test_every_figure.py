"""Figures of a summary show its numbers, with units, counts and intervals, whatever the tokens are."""

import io
import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from tokenshift.analysis.figures.kit import token_label
from tokenshift.analysis.shift.figures.characterisation import (
    distance_positions,
    entropy_by_js,
    joint_histogram,
    quantile_curve,
    relative_position,
    sparsity,
    token_identity,
)
from tokenshift.analysis.shift.figures.every_figure import summary_figures
from tokenshift.analysis.shift.figures.evolution import (
    jaccard_evolution,
    near_zero_evolution,
    overlap_accuracy_evolution,
    percentile_evolution,
)
from tokenshift.analysis.shift.figures.mechanics import base_ranks, correct_minus_incorrect, mass_moved, overlap
from tokenshift.analysis.shift.figures.robustness import robustness, sparsity_by_top_p
from tokenshift.analysis.shift.summary import summarise
from tokenshift.analysis.token_table.schema import TABLE_SCHEMA

HOSTILE = [
    "\n",
    " ",
    "$",
    "$x$",
    r"\boxed{",
    "🙂",
    "y" * 200,
    "_",
    "%",
    "漢",
    "\ud83d",
    "'",
    "",
    "\u202e",
    "$$ \\frac{",
]
ALL_NAMES = [
    "quantile_curve",
    "sparsity",
    "relative_position",
    "distance_positions",
    "entropy_by_js",
    "joint_histogram",
    "token_identity",
    "overlap",
    "base_ranks",
    "mass_moved",
    "correct_minus_incorrect",
]


def random_table(responses: int = 24, length: int = 40, *, judged: bool = True, largest_js: float = 0.69) -> pa.Table:
    rng = np.random.default_rng(0)
    n = responses * length
    js = np.where(rng.random(n) < 0.6, 10 ** rng.uniform(-9, -3, n), rng.uniform(0, largest_js, n))
    texts = [text for text in HOSTILE if text.isprintable() or text == "\n"]  # Parquet and Arrow hold UTF-8 alone
    ids = rng.integers(0, len(texts), n)
    response = np.repeat(np.arange(responses), length)
    columns: dict[str, Any] = {
        "problem_id": response // 2,
        "sample_id": response % 2,
        "trajectory": pa.array(["rl"] * n).dictionary_encode(),
        "position": np.tile(np.arange(length), responses),
        "length": np.full(n, length),
        "token_id": ids,
        "token": [texts[each] for each in ids],
        "correct": [bool(each % 3) if judged else None for each in response],
        "js": js,
        "js_top_p": js,
    }
    for name in TABLE_SCHEMA.names:
        if name.startswith(("rank_", "top1_", "rl_top1_rank")):
            columns[name] = rng.integers(1, 12, n)
        elif name.startswith("mass_"):
            columns[name] = 1 - 0.5 / int(name.split("_")[-1]) * rng.random(n)
        elif name.startswith("overlap_"):
            columns[name] = rng.integers(0, 2, n)
        elif name not in columns:
            columns[name] = rng.uniform(0, 3, n)
    return pa.table([pa.array(columns[field.name]).cast(field.type) for field in TABLE_SCHEMA], schema=TABLE_SCHEMA)


@pytest.fixture(scope="module")
def groups() -> dict[str, Any]:
    found: dict[str, Any] = summarise(random_table(), resamples=30)["rl"]
    return found


def _interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value * 0.9, "high": min(1, value * 1.1)}


def evolution_rows(with_steps: bool = True) -> list[dict[str, Any]]:
    rows = [
        {
            "label": f"checkpoint-{20 * place}",
            "step": 20 * place if with_steps or place else None,
            "quantiles": {name: _interval(float(name) ** 9 * place / 10) for name in ("0.5", "0.9", "0.95", "0.99")},
            "measure": "js_top_p",
            "top_p": 0.7,
            "near_zero": _interval(1 - place / 10),
            "exact_zero": _interval(0.9 - place / 10),
            "second": {"measure": "js", "near_zero": _interval(0.8 - place / 10)},
            "jaccard_final": _interval(place / 4),
            "jaccard_previous": _interval(place / 8) if place else None,
            "overlap_high": {name: _interval(0.2 * place) for name in ("1", "2", "10")} if place else None,
            "accuracy": _interval(0.2 + 0.1 * place) if place != 2 else None,
        }
        for place in range(5)
    ]
    return rows


def robustness_rows() -> list[dict[str, Any]]:
    share = {"value": 0.7, "low": 0.6, "high": 0.8}
    return [
        {"label": "top-p 0.7", "near_zero": share, "high": share, "overlap_2": share, "rank_3": share},
        {"label": "temperature $0.6$ of a very long name indeed", "near_zero": share, "high": None, "rank_3": None},
    ]


EVOLUTIONS: list[Callable[..., Figure]] = [
    percentile_evolution,
    near_zero_evolution,
    jaccard_evolution,
    overlap_accuracy_evolution,
]


def panels(figure: Figure) -> list[Axes]:
    """Without colour bars and the axes that only hold counts."""
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>" and not is_twin(axes)]


def is_twin(axes: Axes) -> bool:
    return axes.yaxis.get_label_position() == "right"


def saved(figure: Figure, form: str) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as a missing glyph, a layout that does not fit
        figure.savefig(buffer, format=form, dpi=40)
        figure.set_layout_engine("none")  # it is laid out now
    return buffer.getvalue()


def line(axes: Axes, number: int = 0) -> np.ndarray:
    return np.asarray(axes.lines[number].get_ydata(), dtype=float)


def whiskers(axes: Axes, number: int = 0, along: int = 1) -> np.ndarray:
    """Ends of the drawn intervals, `(N, 2)`."""
    lines = axes.collections[number]
    assert isinstance(lines, LineCollection)
    return np.array([segment[:, along] for segment in lines.get_segments()])


def bounds(entry: dict[str, Any], factor: float = 1) -> np.ndarray:
    pairs = zip(entry["low"], entry["high"], strict=True)
    return factor * np.array([pair for pair in pairs if None not in pair], dtype=float)


def values(entry: dict[str, Any]) -> np.ndarray:
    return np.array(entry["value"], dtype=float)


@pytest.fixture(scope="module")
def drawn(groups: dict[str, Any]) -> dict[str, tuple[Figure, str]]:
    return summary_figures(groups, "a model with $ and $", control=groups)


def test_every_figure_is_there_and_saves(drawn: dict[str, tuple[Figure, str]]) -> None:
    assert list(drawn) == ALL_NAMES
    for figure, _ in drawn.values():
        assert saved(figure, "png").startswith(b"\x89PNG")
    for name in ("quantile_curve", "joint_histogram"):
        assert b"</svg>" in saved(drawn[name][0], "svg")


@pytest.mark.parametrize("name", ALL_NAMES)
def test_axes_have_labels_and_titles_an_n(drawn: dict[str, tuple[Figure, str]], name: str) -> None:
    figure, caption = drawn[name]
    assert "n = " in figure.get_suptitle()
    assert all(axes.get_xlabel() for axes in panels(figure))
    assert panels(figure)[0].get_ylabel() or name == "correct_minus_incorrect"
    assert any(unit in caption for unit in ("nats", "hare", "robability"))
    assert "960" in caption
    units = " ".join(axes.get_xlabel() + axes.get_ylabel() for axes in panels(figure))
    assert any(unit in units for unit in ("nats", "%", "probability"))


def test_captions_tell_whose_the_thresholds_are(drawn: dict[str, tuple[Figure, str]]) -> None:
    caption = drawn["sparsity"][1]
    assert "JS < 0.001, this project's value" in caption
    assert "JS > 0.1, the publication's value" in caption
    assert "95 % bootstrap" in caption
    assert "control" in caption


def test_the_other_measure_and_exact_zeros_stand_beside() -> None:
    """In the figures that are set beside the publication's, and in their captions."""
    table = random_table()
    truncated = table["js_top_p"].to_numpy().copy()
    truncated[::2] = 0
    table = table.set_column(table.column_names.index("js_top_p"), "js_top_p", pa.array(truncated))
    both = [summarise(table, measure=name, top_p=0.7, resamples=10)["rl"] for name in ("js_top_p", "js")]
    drawn = summary_figures(both[0], "t", second=both[1])
    for name in ("quantile_curve", "sparsity", "entropy_by_js", "joint_histogram", "token_identity"):
        assert "Exactly 0 at top-p: 50.0 %" in drawn[name][1], name
        assert "full JS there" in drawn[name][1], name
    for name in ("quantile_curve", "sparsity", "relative_position", "overlap", "base_ranks"):
        figure, caption = drawn[name]
        assert "by full JS" in caption, name
        assert any("full JS" in text.get_text() for legend in figure.legends for text in legend.get_texts()), name
        saved(figure, "png")
    assert all("truncated to top-p 0.7, as published" in caption for _, caption in drawn.values())
    shares = 100 * values(both[1]["all"]["means"]["sparsity"])[:-1]
    np.testing.assert_allclose(line(drawn["sparsity"][0].axes[0], 3), shares)
    turned = summary_figures(both[1], "t", second=both[0])
    assert all("exactly" not in caption.lower() for _, caption in turned.values())
    assert all("between whole distributions" in caption for _, caption in turned.values())


def test_quantile_curve_draws_the_quantiles(groups: dict[str, Any]) -> None:
    (axes,) = quantile_curve(groups, "t", control=groups).axes
    entry = groups["all"]["quantiles"]
    np.testing.assert_allclose(line(axes), entry["value"][:-1])  # the maximum is of no share
    shares = 100 * (1 - np.array(entry["labels"][:-1], dtype=float))
    np.testing.assert_allclose(np.asarray(axes.lines[0].get_xdata(), dtype=float), shares)
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert set(np.round(entry["low"][:-1], 12)) <= set(np.round(band, 12))
    assert set(np.round(entry["high"][:-1], 12)) <= set(np.round(band, 12))
    styles = [each.get_linestyle() for each in axes.lines[:4]]
    assert len(set(styles)) == 4
    assert len({each.get_marker() for each in axes.lines[:4]}) == 4


def test_sparsity_draws_shares_and_intervals(groups: dict[str, Any]) -> None:
    (axes,) = sparsity(groups, "t").axes
    for number, name in enumerate(("all", "correct", "incorrect")):
        entry = groups[name]["means"]["sparsity"]
        np.testing.assert_allclose(line(axes, number), 100 * values(entry)[:-1])
        np.testing.assert_allclose(whiskers(axes, number), bounds(entry, 100)[:-1])


def test_positions_draw_means_and_shares(groups: dict[str, Any]) -> None:
    means = groups["all"]["means"]
    left, right = relative_position(groups, "t").axes
    np.testing.assert_allclose(line(left), values(means["position_relative"]))
    np.testing.assert_allclose(line(right), 100 * values(means["position_relative_high"]))
    np.testing.assert_allclose(whiskers(left), bounds(means["position_relative"]))
    for axes, name in zip(
        distance_positions(groups, "t").axes, ("from_start", "from_end", "from_answer"), strict=True
    ):
        entry = means[f"position_{name}"]
        np.testing.assert_allclose(line(axes), [value for value in entry["value"] if value is not None])
        np.testing.assert_allclose(whiskers(axes), bounds(entry))
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert labels == [label for label, n in zip(entry["labels"], entry["n"], strict=True) if n]


def test_entropies_with_the_n_of_each_bin(groups: dict[str, Any]) -> None:
    (axes,) = entropy_by_js(groups, "t").axes
    for number, name in enumerate(("entropy_base", "entropy_rl")):
        np.testing.assert_allclose(line(axes, number), values(groups["all"]["means"][name]))
    counts = groups["all"]["means"]["entropy_rl"]["n"]
    for label, count in zip(axes.get_xticklabels(), counts, strict=True):
        assert f"n = {count:,}" in label.get_text()


def test_joint_histogram_holds_all_tokens(groups: dict[str, Any]) -> None:
    for axes in panels(joint_histogram(groups, "t")):
        counts = axes.collections[0].get_array()
        assert counts is not None
        assert counts.sum() == groups["all"]["tokens"]
        assert counts.shape[0] <= 31  # entropies below 3 nats


def test_token_identity_draws_each_ones_quantiles(groups: dict[str, Any]) -> None:
    figure = token_identity(groups, "t")
    for axes, name in zip(panels(figure), ("high", "near_zero"), strict=True):
        rows = groups["all"]["identity"][name][:15]
        quantiles = np.array([row["quantiles"] for row in rows])
        np.testing.assert_allclose(whiskers(axes, 0, along=0), quantiles[:, [0, 4]])
        np.testing.assert_allclose(whiskers(axes, 1, along=0), quantiles[:, [1, 3]])
        medians = [each.get_xdata() for each in axes.lines if each.get_marker() == "o"]
        np.testing.assert_allclose(np.asarray(medians[0], dtype=float), quantiles[:, 2])
    twin = next(axes for axes in figure.axes if is_twin(axes))
    first = groups["all"]["identity"]["high"][0]
    assert twin.get_yticklabels()[0].get_text() == f"{first['n_high']:,} / {first['n']:,}"


@pytest.mark.parametrize("draw", [overlap, base_ranks])
def test_mechanics_draw_high_and_all(groups: dict[str, Any], draw: Callable[..., Figure]) -> None:
    (axes,) = draw(groups, "t").axes
    stem = {overlap: "overlap", base_ranks: "rank"}[draw]
    for number, name in enumerate(("high", "all")):
        entry = groups["all"]["means"][f"{stem}_{name}"]
        np.testing.assert_allclose(line(axes, number), 100 * values(entry))
        np.testing.assert_allclose(whiskers(axes, number), bounds(entry, 100))


def test_published_overlap_is_labelled(groups: dict[str, Any]) -> None:
    (axes,) = overlap(groups, "t").axes
    published = next(each for each in axes.lines if "published" in str(each.get_label()))
    assert published.get_linestyle() == ":"
    assert set(published.get_ydata()) == {80}


def test_mass_moved_draws_both_models_and_the_change(groups: dict[str, Any]) -> None:
    left, right = mass_moved(groups, "t").axes
    means = groups["all"]["means"]
    np.testing.assert_allclose(line(left, 0), values(means["mass_base_high"]))
    np.testing.assert_allclose(line(left, 1), values(means["mass_rl_high"]))
    np.testing.assert_allclose(line(right), values(means["mass_moved_high"]))
    np.testing.assert_allclose(whiskers(right), bounds(means["mass_moved_high"]))


def test_differences_have_panels_by_unit(groups: dict[str, Any]) -> None:
    shares, js, others = correct_minus_incorrect(groups, "t").axes
    found = groups["correct_minus_incorrect"]
    assert "percentage points" in shares.get_xlabel()
    assert "nats" in js.get_xlabel()
    np.testing.assert_allclose(shares.lines[0].get_xdata(), 100 * values(found["sparsity"]))
    np.testing.assert_allclose(whiskers(shares, 0, along=0), bounds(found["sparsity"], 100))
    np.testing.assert_allclose(js.lines[0].get_xdata(), values(found["mean"])[:2])
    np.testing.assert_allclose(others.lines[0].get_xdata(), values(found["mean"])[2:])


def test_nothing_high() -> None:
    quiet = summarise(random_table(largest_js=0.05), resamples=5)["rl"]
    found = summary_figures(quiet, "t")
    assert "mass_moved" not in found
    saved(mass_moved(quiet, "t"), "png")
    for name in ("token_identity", "overlap", "base_ranks", "correct_minus_incorrect"):
        saved(found[name][0], "png")
    assert any("no token with JS > 0.1" in text.get_text() for text in token_identity(quiet, "t").axes[0].texts)


def test_unjudged_responses_without_masses_or_truncated_js() -> None:
    table = random_table(judged=False)
    absent = [name for name in table.column_names if name.startswith("mass_") or name == "js_top_p"]
    found = summary_figures(summarise(table.drop_columns(absent), measure="js", resamples=5)["rl"], "t")
    assert list(found) == ALL_NAMES[:-2]
    saved(found["relative_position"][0], "png")
    with pytest.raises(ValueError, match="no mean 'mass_base_high'"):
        mass_moved(summarise(table.drop_columns(absent), measure="js", resamples=5)["rl"], "t")


@pytest.mark.parametrize("length", [1, 40])
def test_one_response_has_no_interval(length: int) -> None:
    single = summarise(random_table(1, length), resamples=5)["rl"]
    found = summary_figures(single, "t")
    for name in ("relative_position", "distance_positions", "entropy_by_js"):
        saved(found[name][0], "png")
    for _, caption in found.values():
        assert "bootstrap" not in caption or "no meaning" in caption


def test_without_intervals(groups: dict[str, Any]) -> None:
    bare = deepcopy(groups)
    for group in (bare["all"], bare["correct"], bare["incorrect"]):
        for entry in (*group["means"].values(), group["quantiles"]):
            entry["low"] = entry["high"] = None
    for entry in bare["correct_minus_incorrect"].values():
        entry["low"] = entry["high"] = [None] * len(entry["labels"])
    found = summary_figures(bare, "t")
    for name in ("quantile_curve", "sparsity"):
        saved(found[name][0], "png")
    (axes,) = found["overlap"][0].axes
    assert len(whiskers(axes)) == 0
    np.testing.assert_allclose(line(axes), 100 * values(bare["all"]["means"]["overlap_high"]))


def test_differences_need_both_sorts(groups: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="correct_minus_incorrect"):
        correct_minus_incorrect({"all": groups["all"]}, "t")


@pytest.mark.parametrize(
    ("token", "text"),
    [
        ("\n", r"'\n'"),
        (" the", "' the'"),
        ("$", r"'\$'"),  # matplotlib writes this as a dollar
        (r"\boxed{", r"'\\boxed{'"),
        ("漢", r"'\u6f22'"),
        ("y" * 200, f"'{'y' * 12}'…"),
        ("\ud83d", r"'\ud83d'"),
        ("it's", r"'it\'s'"),
        ("", "''"),
    ],
)
def test_tokens_are_shown_on_one_short_line(token: str, text: str) -> None:
    assert token_label(token) == text


@pytest.mark.parametrize("form", ["png", "svg"])
def test_hostile_tokens_and_titles_are_drawn(groups: dict[str, Any], form: str) -> None:
    mine = deepcopy(groups["all"])
    row = mine["identity"]["high"][0]
    mine["identity"]["high"] = [{**row, "token": token} for token in HOSTILE]
    figure = token_identity({"all": mine}, " ".join(HOSTILE))
    saved(figure, form)
    labels = [label.get_text() for label in panels(figure)[0].get_yticklabels()]
    assert labels == [token_label(token) for token in HOSTILE]
    assert all("\n" not in label and len(label) < 25 for label in labels)


@pytest.mark.parametrize("draw", EVOLUTIONS)
@pytest.mark.parametrize("with_steps", [True, False])
def test_evolution(draw: Callable[..., Figure], with_steps: bool) -> None:
    rows = evolution_rows(with_steps)
    figure = draw(rows[::-1] if with_steps else rows, "t")
    assert "n = 5 checkpoints" in figure.get_suptitle()
    if not with_steps:
        saved(figure, "png")
    for axes in figure.axes:
        assert axes.get_xlabel() == ("update" if with_steps else "checkpoint")
        assert axes.get_ylabel()
        places = [row["step"] for row in rows] if with_steps else range(5)
        np.testing.assert_array_equal(axes.lines[0].get_xdata(), places)


def test_evolution_draws_the_rows() -> None:
    rows = evolution_rows()
    (axes,) = percentile_evolution(rows, "t").axes
    for number, name in enumerate(("0.99", "0.95", "0.9", "0.5")):
        np.testing.assert_allclose(line(axes, number), [row["quantiles"][name]["value"] for row in rows])
        assert whiskers(axes, number).shape == (5, 2)
    (axes,) = jaccard_evolution(rows, "t").axes
    np.testing.assert_allclose(line(axes, 0), [row["jaccard_final"]["value"] for row in rows])
    np.testing.assert_allclose(line(axes, 1), [np.nan, *(row["jaccard_previous"]["value"] for row in rows[1:])])
    (axes,) = near_zero_evolution(rows, "t").axes
    assert [each.get_label() for each in axes.lines] == [
        "JS at top-p 0.7 < 0.001",
        "full JS < 0.001",
        "JS at top-p 0.7 exactly 0",
    ]
    for number, first in enumerate((100, 80, 90)):
        np.testing.assert_allclose(line(axes, number), [first - 10 * place for place in range(5)])
    left, right = overlap_accuracy_evolution(rows, "t").axes
    assert [each.get_label() for each in left.lines] == ["k = 1", "k = 2", "k = 10"]
    np.testing.assert_allclose(line(left), [np.nan, 20, 40, 60, 80])
    np.testing.assert_allclose(line(right), [20, 30, np.nan, 50, 60])


@pytest.mark.parametrize("draw", [*EVOLUTIONS, robustness])
def test_no_or_empty_rows(draw: Callable[..., Figure]) -> None:
    draw([], "t")
    saved(draw([{"label": "a", "step": 1, "quantiles": None, "overlap_high": None, "accuracy": None}], "t"), "png")


def test_robustness_draws_a_panel_a_quantity() -> None:
    rows = robustness_rows()
    figure = robustness(rows, "t")
    saved(figure, "svg")
    assert "n = 2 settings" in figure.get_suptitle()
    assert len(figure.axes) == 4
    assert all("%" in axes.get_xlabel() for axes in figure.axes)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), [70, 70])
    np.testing.assert_allclose(figure.axes[1].lines[0].get_xdata(), [70, np.nan])
    np.testing.assert_allclose(whiskers(figure.axes[0], 0, along=0), [[60, 80], [60, 80]])


def test_sparsity_by_top_p_draws_near_zero_and_exact_zeros() -> None:
    rows = [
        {
            "label": "",
            "trajectories": kind,
            "temperature": temperature,
            "top_p": top_p,
            "near_zero": _interval(0.9 - 0.1 * top_p),
            "exact_zero": _interval(0.8 - 0.1 * top_p),
        }
        for top_p in (1.0, 0.7, 0.9)
        for kind in ("rl", "base")
        for temperature in (0.7, 1.0)
    ]
    figure = sparsity_by_top_p(rows, "t")
    saved(figure, "png")
    assert [axes.get_title() for axes in figure.axes] == ["rl trajectories", "base trajectories"]
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0.7", "0.9", "whole"]
        np.testing.assert_allclose(line(axes, 0), [83, 81, 80])
        np.testing.assert_allclose(line(axes, 1), [73, 71])  # at top-p 1 nothing is truncated
    saved(sparsity_by_top_p([], "t"), "png")
