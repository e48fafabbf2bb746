"""The probe's figures show the rows of its table."""

import io

import numpy as np
import pytest
from helpers.random_table import random_rows

from tokenshift.analysis.shift.figures.probe import js_entropy_map, js_histogram, position_profile, probe_figures
from tokenshift.analysis.shift.probe_summary import shift_summary

TABLE = random_rows(0, [40, 3, 25])


@pytest.mark.parametrize("lengths", [[1], [40, 3, 25]])
def test_every_figure_saves(lengths: list[int]) -> None:
    table = random_rows(0, lengths)
    drawn = probe_figures(table, "own", 4, {0: shift_summary(table), 4: shift_summary(table)})
    assert list(drawn) == ["js_histogram", "position_profile", "js_entropy_map", "percentiles"]
    for figure, caption in drawn.values():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=40)
        assert buffer.getvalue().startswith(b"\x89PNG")
        assert "own trajectories" in figure.get_suptitle()
        assert "nats" in caption


def test_bars_are_shares_of_tokens() -> None:
    for axes, name in zip(js_histogram(TABLE, "t").axes, ("js_top_p", "js"), strict=True):
        heights = [bar.get_height() for bar in axes.patches]
        within = TABLE[name].to_numpy() <= 0.6931479  # random truncated JS are larger
        assert sum(heights) == pytest.approx(100 * within.mean())
        assert heights[0] == pytest.approx(100 * (TABLE[name].to_numpy() < 1e-7).mean())


def test_profile_is_by_part_of_the_response() -> None:
    parts = TABLE["position"].to_numpy() * 20 // TABLE["length"].to_numpy()
    for axes, name in zip(position_profile(TABLE, "t").axes, ("js_top_p", "js"), strict=True):
        js = TABLE[name].to_numpy()
        expected = [js[parts == part].mean() for part in range(20)]
        np.testing.assert_allclose(np.asarray(axes.lines[1].get_ydata(), dtype=float), expected, rtol=1e-6)


def test_map_holds_all_tokens() -> None:
    counts = js_entropy_map(TABLE, "t").axes[1].collections[0].get_array()
    assert counts is not None
    assert counts.sum() == TABLE.num_rows


def test_percentiles_by_update() -> None:
    table = random_rows(1, [9])
    summaries = {0: shift_summary(TABLE), 20: shift_summary(table)}
    figure, _ = probe_figures(table, "fixed", 20, summaries)["percentiles"]
    for axes, prefix in zip(figure.axes, ("top_p/", ""), strict=True):
        assert [line.get_label() for line in axes.lines[:4]] == ["p99", "p95", "p90", "p50"]
        assert list(axes.lines[0].get_xdata()) == [0, 20]
        np.testing.assert_allclose(
            np.asarray(axes.lines[0].get_ydata(), dtype=float),
            [summary[f"{prefix}p99"] for summary in summaries.values()],
        )
    assert "9 to 68 tokens per probe" in figure.get_suptitle().replace("\n", " ")


def test_probes_of_before_lack_truncated_percentiles() -> None:
    old = {key: value for key, value in shift_summary(TABLE).items() if not key.startswith("top_p/p")}
    figure, caption = probe_figures(TABLE, "fixed", 20, {0: old, 20: shift_summary(TABLE)})["percentiles"]
    truncated, full = (np.asarray(axes.lines[0].get_ydata(), dtype=float) for axes in figure.axes)
    assert np.isnan(truncated).tolist() == [True, False]
    assert np.isfinite(full).all()
    assert "exactly 0 at 0.0 % of tokens" in caption
