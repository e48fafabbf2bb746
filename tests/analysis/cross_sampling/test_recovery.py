"""Recovery, areas and their intervals: by hand on a tiny table, and against resampling row by row."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tokenshift.analysis.cross_sampling.figures import accuracy_curves, areas
from tokenshift.analysis.cross_sampling.intervention import CrossResponse
from tokenshift.analysis.cross_sampling.pilot import Threshold, next_threshold, threshold_for
from tokenshift.analysis.cross_sampling.recovery import area, area_of_first, recovery_summary, tokens_needed
from tokenshift.analysis.cross_sampling.report import needed_text, shown_policy, side_by_side
from tokenshift.analysis.cross_sampling.sweep import SweptPolicy, sweep_cells
from tokenshift.analysis.cross_sampling.sweep_run import SWEEP_SCHEMA
from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap
from tokenshift.analysis.thresholds import LOG_2

BASE = [1, 0, 0, 0, 0, 0, 0, 1]
RL = [1, 1, 1, 1, 1, 0, 1, 1]


def rows(
    cell: SweptPolicy, correct: list[int | None], effective: list[list[bool]], length: int = 10
) -> list[dict[str, Any]]:
    """A response a problem; interventions are at its first positions."""
    return [
        {
            **{name: getattr(cell, name) for name in ("direction", "criterion", "epsilon", "budget", "most")},
            "gamma": cell.gamma,
            "seed": cell.seed,
            "problem_id": 10 + problem,
            "sample_id": 0,
            "length": length,
            "correct": None if verdict is None else bool(verdict),
            "positions": list(range(len(hits))),
            "effective": hits,
        }
        for problem, (verdict, hits) in enumerate(zip(correct, effective, strict=True))
    ]


def table(found: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(found, schema=SWEEP_SCHEMA)


def small(base: list[int | None] = BASE, rl: list[int | None] = RL) -> pa.Table:
    """Forward js at two thresholds and random at one, backward js at one."""
    nothing, every = [[]] * 8, [[True] * 5 + [False] * 5] * 8
    found = rows(SweptPolicy("forward", "none"), base, nothing) + rows(SweptPolicy("forward", "all"), rl, every)
    found += rows(SweptPolicy("forward", "js", 0.3), [1, 1, 0, 0, 0, 0, 0, 1], [[True]] * 4 + [[]] * 4)
    found += rows(SweptPolicy("forward", "js", 0.1, budget=0.2), RL, [[True, False]] * 8)
    found += rows(
        SweptPolicy("forward", "random", 0.8), [1, 0, 1, 0, 0, 0, 1, 1], [[True, False]] * 2 + [[False] * 2] * 6
    )
    found += rows(SweptPolicy("backward", "none"), rl, nothing) + rows(SweptPolicy("backward", "all"), base, every)
    return table(found + rows(SweptPolicy("backward", "js", 0.1), [1, 1, 0, 0, 0, 0, 0, 1], [[True]] * 8, 20))


def test_numbers_by_hand() -> None:
    """Base 2 of 8, RL 7 of 8."""
    summary = recovery_summary(small(), resamples=200)
    assert summary["defined"]
    assert summary["problems"] == 8
    levels = {name: entry["value"] for name, entry in summary["levels"].items()}
    assert levels == pytest.approx({"base": 2 / 8, "rl": 7 / 8, "gain": 5 / 8})
    js, near, random = summary["cells"][2:5]
    back = summary["cells"][7]
    assert (js["epsilon"], js["budget"], near["budget"], js["seeds"]) == (0.3, None, 0.2, [0])
    values = {name: js[name]["value"] for name in ("accuracy", "length", "intervened", "effective", "recovery")}
    expected = {"accuracy": 3 / 8, "length": 10, "intervened": 4 / 80, "effective": 4 / 80, "recovery": 1 / 5}
    assert values == pytest.approx(expected)
    assert js["intervened_count"]["value"] == js["effective_count"]["value"] == 0.5
    assert (near["recovery"]["value"], random["recovery"]["value"]) == pytest.approx((1, 2 / 5))
    assert (random["intervened"]["value"], random["effective"]["value"]) == pytest.approx((0.2, 2 / 80))
    # of RL's 5 gained problems, 4 are lost
    assert (back["accuracy"]["value"], back["recovery"]["value"]) == pytest.approx((3 / 8, 4 / 5))
    assert back["intervened"]["value"] == pytest.approx(8 / 160)

    forward_js, forward_random, backward = summary["curves"]
    # (0, 0) (0.05, 0.2) (0.2, 1) (1, 1), and by effective share of 0.5: 0.1, 0.2
    by_share = 0.05 * 0.1 + 0.15 * 0.6 + 0.8
    assert forward_js["area_intervened"]["value"] == pytest.approx(by_share)
    assert forward_js["area_effective"]["value"] == pytest.approx(0.1 * 0.1 + 0.1 * 0.6 + 0.8)
    assert forward_js["area_intervened_to_js"] is None
    random_area = 0.2 * 0.2 + 0.8 * 0.7
    assert forward_random["area_intervened"]["value"] == pytest.approx(random_area)
    assert forward_random["area_intervened_to_js"]["value"] == pytest.approx(random_area - by_share)
    assert forward_js["enough"] == {"intervened": 3, "effective": 3}
    assert forward_random["enough"] == backward["enough"] == {"intervened": None, "effective": None}
    assert shown_policy(summary, "forward")["epsilon"] == 0.1  # type: ignore[index]
    for direction in ("forward", "backward"):
        accuracy_curves(summary, direction, "effective", "$title$")
        areas(summary, direction, "title")


def test_intervals_are_those_of_resampling_row_by_row() -> None:
    """Two seeds, problems with responses of different number; every statistic from the rows of a resample."""
    rng = np.random.default_rng(0)
    cells = [
        SweptPolicy("forward", "none"),
        SweptPolicy("forward", "all"),
        SweptPolicy("forward", "js", 0.2),
        SweptPolicy("forward", "js", 0.1),
    ]
    cells += [SweptPolicy("forward", "random", 0.9), SweptPolicy("backward", "none"), SweptPolicy("backward", "all")]
    found = []
    for cell in cells:
        right = {"none": 0.2, "all": 0.8}.get(cell.criterion, 0.5)
        right = 1 - right if cell.direction == "backward" else right
        count = {"none": 0, "all": 9}.get(cell.criterion, 3)
        for seed in (0, 1):
            correct = [int(each) for each in rng.random(30) < right]
            hits = [(rng.random(rng.integers(count + 1)) < 0.5).tolist() for _ in range(30)]
            found += rows(SweptPolicy(cell.direction, cell.criterion, cell.epsilon, seed=seed), correct, hits)
    found = [row for row in found if row["seed"] == 0 or row["problem_id"] % 3]
    summary = recovery_summary(table(found), resamples=60, seed=3)
    assert summary["cells"][0]["seeds"] == [0, 1]

    weights = ProblemBootstrap(30, 60, 3).weights
    samples: dict[str, list[float]] = {}
    for weight in weights:
        chosen = [row for row in found for _ in range(int(weight[row["problem_id"] - 10]))]

        def mean(cell: SweptPolicy, above: str, below: str = "", chosen: list[dict[str, Any]] = chosen) -> float:
            own = [r for r in chosen if all(r[n] == getattr(cell, n) for n in ("direction", "criterion", "epsilon"))]
            value = {
                "correct": lambda r: r["correct"],
                "length": lambda r: r["length"],
                "effective": lambda r: sum(r["effective"]),
                "intervened": lambda r: len(r["positions"]),
            }
            return sum(map(value[above], own)) / (sum(map(value[below], own)) if below else len(own))

        base, rl = mean(cells[0], "correct"), mean(cells[5], "correct")
        recovered = [(mean(cell, "correct") - base) / (rl - base) for cell in cells[1:5]]
        share = [mean(cell, "effective", "length") for cell in cells[1:5]]
        scaled = [min(1, each / share[0]) for each in share]
        curves = {}
        for name, places in (("js", (1, 2)), ("random", (3,))):
            points = sorted((scaled[place], recovered[place]) for place in places)
            x, y = [0, *(p[0] for p in points), 1], [0, *(p[1] for p in points), recovered[0]]
            curves[name] = sum((y[k] + y[k + 1]) / 2 * (x[k + 1] - x[k]) for k in range(len(x) - 1))
        for name, value in {
            "gain": rl - base,
            "js": recovered[2],
            "intervened": mean(cells[2], "intervened", "length"),
            "count": mean(cells[2], "effective"),
            "area": curves["js"],
            "apart": curves["random"] - curves["js"],
        }.items():
            samples.setdefault(name, []).append(value)
    entries = {
        "gain": summary["levels"]["gain"],
        "js": summary["cells"][3]["recovery"],
        "intervened": summary["cells"][2]["intervened"],
        "count": summary["cells"][2]["effective_count"],
        "area": summary["curves"][0]["area_effective"],
        "apart": summary["curves"][1]["area_effective_to_js"],
    }
    for name, values in samples.items():
        expected = np.quantile(values, [0.025, 0.975]).tolist()
        assert [entries[name]["low"], entries[name]["high"]] == pytest.approx(expected, abs=1e-6), name


def test_few_tokens_by_hand() -> None:
    """Forward js has recoveries 0.2 at 0.5 effective a response and 1 at 1; random has 0.4 at 0.25."""
    summary = recovery_summary(small(), resamples=50)
    js, random, backward = summary["curves"]
    half, most = (js["needed"]["effective_count"][level]["value"] for level in ("50", "90"))
    assert (half, most) == pytest.approx((0.5 + 0.5 * 0.3 / 0.8, 0.5 + 0.5 * 0.7 / 0.8))
    assert js["needed"]["effective"]["50"]["value"] == pytest.approx(half / 10)
    assert js["needed"]["intervened"]["50"]["value"] == pytest.approx(0.05 + 0.15 * 0.3 / 0.8)
    assert random["needed"]["effective_count"]["50"]["value"] is None
    assert random["needed"]["effective_count"]["90"]["high"] is None
    assert random["needed"]["effective_count"]["90"]["reached"] < 0.5
    assert backward["needed"]["effective_count"]["50"]["value"] == pytest.approx(5 / 8)  # 4 of 5 at one a response
    # by intervened share the lines go over (0.05, 0.2), and are at 0.2 + 0.8 / 3 at 0.1
    at_limit = 0.2 + 0.8 / 3
    assert js["area_intervened_10"]["value"] == pytest.approx((0.05 * 0.1 + 0.05 * (0.2 + at_limit) / 2) / 0.1)
    assert js["area_intervened_10_difference"] is None
    assert (js["reference"], random["reference"]) == ("js", "js")
    apart = random["area_intervened_10"]["value"] - js["area_intervened_10"]["value"]
    assert random["area_intervened_10"]["value"] == pytest.approx(0.1 * 0.2 / 2 / 0.1)
    assert random["area_intervened_10_difference"]["value"] == pytest.approx(apart)
    assert needed_text(js["needed"]["effective_count"]["50"], with_interval=False) == f"{half:.3g}"
    assert needed_text(random["needed"]["effective_count"]["90"]).startswith("not reached [")
    assert needed_text({"value": 1.0, "low": 0.5, "high": None}, scale=100) == "100 [50, not reached]"
    assert needed_text(None) == "-"


def test_tokens_needed_along_a_line_that_goes_back() -> None:
    """The first crossing is at the most tokens: they are fewer where the line comes back."""
    amounts, values = np.array([2.0, 1.0, 3.0]), np.array([0.2, 1.0, 0.4])
    assert tokens_needed(amounts, values, 0.6) == 1.0
    assert tokens_needed(np.array([2.0, 4.0]), np.array([0.2, 1.0]), 0.6) == pytest.approx(3)
    assert tokens_needed(np.array([2.0, 4.0]), np.array([1.0, 0.0]), 0.5) == pytest.approx(1)
    assert tokens_needed(np.array([2.0]), np.array([0.4]), 0.5) == np.inf
    assert tokens_needed(np.array([]), np.array([]), 0.5) == np.inf
    assert np.isnan(tokens_needed(np.array([2.0]), np.array([np.nan]), 0.5))
    both = tokens_needed(np.array([[2.0, 4.0], [2.0, 4.0]]), np.array([[0.2, 1.0], [0.1, 0.2]]), 0.6)
    assert both.tolist() == pytest.approx([3, np.inf])


def test_area_of_the_first_tokens() -> None:
    assert area_of_first(np.array([]), np.array([]), 1.0, 1.0) == pytest.approx(0.05)
    assert area_of_first(np.array([]), np.array([]), 0.05, 1.0) == pytest.approx(0.75)  # level beyond the end
    assert area_of_first(np.array([0.05]), np.array([1.0]), 1.0, 1.0) == pytest.approx(0.75)
    assert area_of_first(np.array([0.5]), np.array([0.0]), 0.05, 1.0) == pytest.approx(0.75 - 0.25 + 0.0)
    rng = np.random.default_rng(0)
    shares, values, grid = rng.random((20, 3)) * 0.3, rng.random((20, 3)), np.linspace(0, 0.1, 20001)
    for row, (x, y) in enumerate(zip(shares, values, strict=True)):
        order = np.argsort(x)
        line = np.interp(grid, [0, *x[order], 1], [0, *y[order], 0.9])
        assert area_of_first(shares, values, 1.0, np.full(20, 0.9))[row] == pytest.approx(line.mean(), abs=1e-4)


def test_disagreements_covered() -> None:
    """Effective replacements of all positions where the draws differ; nothing of files that were made before."""
    cell = SweptPolicy("forward", "js", 0.3)
    counted = rows(cell, BASE, [[True, False]] * 4 + [[]] * 4)
    for row, disagreements in zip(counted, (2, 1, 4, 1, 0, 3, 0, 1), strict=True):
        row["disagreements"] = disagreements
    ends = rows(SweptPolicy("forward", "none"), BASE, [[]] * 8) + rows(SweptPolicy("forward", "all"), RL, [[True]] * 8)
    summary = recovery_summary(table(ends + counted), resamples=50)
    none, _, js = summary["cells"]
    assert js["covered"]["value"] == pytest.approx(4 / 12)
    assert 0 < js["covered"]["low"] < js["covered"]["high"]
    assert none["covered"] is None


def test_a_sharpened_base_has_curves_and_ends_of_its_own() -> None:
    found = small().to_pylist()
    sharpened = SweptPolicy("forward", "all", sharpening=2.0), SweptPolicy("forward", "js", 0.3, sharpening=2.0)
    for cell in sharpened:
        found += [{**row, "sharpening": 2.0} for row in rows(cell, [1, 1, 0, 0, 0, 0, 0, 1], [[True]] * 8)]
    summary, before = recovery_summary(table(found), resamples=50), recovery_summary(small(), resamples=50)
    assert summary["levels"] == before["levels"]
    assert [curve for curve in summary["curves"] if curve["sharpening"] is None] == before["curves"]
    (curve,) = (curve for curve in summary["curves"] if curve["sharpening"] is not None)
    assert curve["needed"]["effective_count"]["50"]["value"] is None
    assert [cell["recovery"]["value"] for cell in summary["cells"][-2:]] == pytest.approx([1 / 5, 1 / 5])
    labels = [text.get_text() for text in accuracy_curves(summary, "forward", "effective", "t").legends[0].texts]
    assert labels == ["js", "random", "js, base^2"]
    areas(summary, "forward", "title")


def test_no_recovery_without_a_gain() -> None:
    summary = recovery_summary(small(rl=[1, 0, 0, 0, 0, 0, 1, 1]), resamples=100)
    assert summary["levels"]["gain"]["value"] > 0
    assert not summary["defined"]
    assert all(cell["recovery"] is None for cell in summary["cells"])
    assert summary["curves"][0]["area_effective"] is None
    assert summary["curves"][0]["enough"] == {"intervened": None, "effective": None}
    areas(summary, "forward", "title")
    unjudged = recovery_summary(small([None] * 8, [None] * 8), resamples=10)
    assert unjudged["levels"] == {"base": None, "rl": None, "gain": None}
    accuracy_curves(unjudged, "forward", "intervened", "title")


def test_one_direction_has_both_levels() -> None:
    both = small()
    forward = recovery_summary(both.filter(pa.array([each == "forward" for each in both["direction"].to_pylist()])))
    assert forward["levels"]["rl"]["value"] == 7 / 8
    with pytest.raises(ValueError, match="no cell 'all' of the direction forward"):
        recovery_summary(both.slice(0, 8))


def test_area() -> None:
    assert area(np.array([]), np.array([]), 1.0) == 0.5
    assert area(np.array([0.5, 0.25]), np.array([1.0, 0.0]), 1.0) == pytest.approx(0.25 / 2 + 0.5)
    assert area(np.array([3.0]), np.array([1.0]), 0.0) == 0.5  # to the right of the end: no width of its own
    assert np.isnan(area(np.array([0.5]), np.array([np.nan]), 1.0))


def test_thresholds_leave_the_wanted_share_above() -> None:
    scores = np.random.default_rng(0).permutation(100) / 200
    responses = [CrossResponse(0, k, [1], scores=scores[k * 25 : k * 25 + 25].tolist()) for k in range(4)]
    for share in (0.01, 0.1, 0.5, 0.99):
        assert (scores > threshold_for("js", share, responses)).mean() == pytest.approx(share)
    assert threshold_for("js", 0.001, responses) == pytest.approx(98.5 / 200)  # one token at least
    assert threshold_for("random", 0.25, []) == 0.75
    assert threshold_for("position", 0.1, responses) == -2
    assert threshold_for("position", 0.001, responses) == -1


def test_cells_of_a_sweep() -> None:
    found = [Threshold("forward", "position", 0.0, budget, -1.0, 0.02, 50, []) for budget in (0.01, 0.02)]
    found += [Threshold("forward", "position", 0.5, 0.01, -1.0, 0.02, 50, [])]
    cells = sweep_cells(["forward"], ["position"], [-3.0], found, [0.0, 0.5, 0.0], [0, 7], most=2)
    first = [(cell.criterion, cell.epsilon, cell.budget, cell.most, cell.gamma) for cell in cells if cell.seed == 0]
    assert first == [
        ("none", None, None, None, 0.0),
        ("all", None, None, None, 0.0),
        ("all", None, None, None, 0.5),
        ("position", -3.0, None, 2, 0.0),
        ("position", -1.0, 0.01, 2, 0.0),  # the second budget has the same threshold
        ("position", -3.0, None, 2, 0.5),
        ("position", -1.0, 0.01, 2, 0.5),
    ]
    assert len({cell.name for cell in cells}) == len(cells) == 14


def test_responses_side_by_side() -> None:
    before = {"completion_ids": [1, 2, 3, 4], "correct": False}
    after = {"problem_id": 5, "sample_id": 1, "completion_ids": [1, 2, 7, 8, 9], "length": 5, "correct": True}
    after |= {"positions": [0, 2, 4], "effective": [False, True, True], "primary_ids": [1, 3, 6]}
    pair = side_by_side(before, after, ("base", "mixed"), "Q", lambda ids: "".join(f"<{each}>" for each in ids))
    assert "2 of 5 tokens" in pair.name
    (left, right) = ([(each.text, each.kind, each.instead_of) for each in side[2]] for side in pair.sides)
    assert left == [("<1><2>", "shared", None), ("<3><4>", "own", None)]
    assert right == [
        ("<1><2>", "shared", None),
        ("<7>", "replaced", "<3>"),
        ("<8>", "own", None),
        ("<9>", "replaced", "<6>"),
    ]


NEXT = float(np.nextafter(np.float32(0.2), np.float32(1)))


@pytest.mark.parametrize(
    ("scores", "share", "threshold", "above"),
    [
        ([0.1, 0.2, 0.3, 0.6], 0.25, 0.45, 1),
        ([0.1, 0.2, 0.6, 0.6], 0.25, 0.6, 0),  # none is larger
        ([0.1, 0.2, 0.6, 0.6], 0.5, 0.4, 2),
        ([0.1, 0.4, 0.4, 0.6], 0.5, 0.5, 1),  # of equal scores all are above, or none
        ([0.0, 0.0, 0.0, 0.5], 0.5, 0.25, 1),
        ([float(np.float32(0.2)), NEXT], 0.5, float(np.float32(0.2)), 1),  # neighbours in float32
        ([-1e-9, -1e-12, 0.5, 0.6], 0.75, 0.0, 2),  # rounding below the criterion's range
    ],
)
def test_thresholds_lie_between_two_scores(scores: list[float], share: float, threshold: float, above: int) -> None:
    found = threshold_for("js", share, [CrossResponse(0, 0, [1], scores=scores)])
    assert found == pytest.approx(threshold, abs=1e-7)
    compared = torch.tensor(scores, dtype=torch.float32)
    assert int((compared > found).sum()) == above
    if threshold not in scores and threshold:  # as far from either score as rounding allows
        assert int((compared * (1 + 1e-5) > found).sum()) == int((compared * (1 - 1e-5) > found).sum()) == above


def test_thresholds_of_scores_without_ends() -> None:
    response = CrossResponse(0, 0, [1], scores=[-np.inf, -np.inf, -2.0, 3.0, np.inf])
    found = [threshold_for("delta_logp", share, [response]) for share in (0.2, 0.4, 0.6)]
    assert found == [3.0, 0.5, -np.inf]


def test_the_search_gives_no_threshold_that_decides_as_one_that_was_tried() -> None:
    response = CrossResponse(0, 0, [1], scores=[0.1, 0.2, 0.3, 0.4, 0.5])
    tried: list[tuple[float, float]] = []
    while (epsilon := next_threshold("js", 0.5, [[response]], tried)) is not None:
        tried.append((epsilon, 0.6 if len(tried) % 2 else 0.4))
    above = [sum(score > epsilon for score in response.scores) for epsilon, _ in tried]
    assert len(set(above)) == len(above) >= 2


def test_search_takes_the_middle_where_scores_swing() -> None:
    responses = [CrossResponse(0, 0, [1], scores=np.linspace(0, 0.6931472, 100).tolist())]
    first = next_threshold("js", 0.05, [responses], [])
    assert first == threshold_for("js", 0.05, responses)
    assert first is not None
    bracket = [(first - 0.1, 0.2), (first - 0.02, 0.01)]
    second = next_threshold("js", 0.05, [responses], bracket)
    assert second is not None
    assert bracket[0][0] < second < bracket[1][0]
    assert next_threshold("js", 0.5, [responses], [(0.0, 0.6), (0.001, 0.4)]) is None  # no score lies between
    assert next_threshold("random", 0.05, [[]], [(0.95, 0.06)]) is None
    last = next_threshold("js", 0.05, [responses], [(0.68, 0.2)])
    assert last == pytest.approx(0.6931472 * 98.5 / 99)
    assert next_threshold("js", 0.05, [responses], [(0.69, 0.2)]) is None  # above the last score there is nothing
    beyond = [CrossResponse(0, 0, [1], scores=[0.1, 0.693147184, 0.69314719])]  # by rounding
    assert next_threshold("js", 0.3, [beyond], []) == LOG_2


def test_the_mean_of_graded_rewards_stands_beside_the_recovery() -> None:
    plain = small()
    rewards = [None if correct is None else 0.9 if correct else 0.2 for correct in plain["correct"].to_pylist()]
    graded = plain.set_column(plain.schema.get_field_index("reward"), "reward", pa.array(rewards, pa.float64()))
    summary, before = recovery_summary(graded, 20), recovery_summary(plain, 20)
    assert (summary["graded"], before["graded"]) == (True, False)
    for cell, ungraded in zip(summary["cells"], before["cells"], strict=True):
        assert cell["reward"]["value"] == pytest.approx(0.2 + 0.7 * cell["accuracy"]["value"])
        assert {name: value for name, value in cell.items() if name != "reward"} == ungraded
    assert summary["curves"] == before["curves"]
    old = plain.drop_columns(["reward"])  # as files that were made before are
    assert recovery_summary(old, 20) == before
    summary["correct"] = "mine.score >= 0.5"
    (axes,) = accuracy_curves(summary, "forward", "effective", "a title").axes
    assert axes.get_ylabel() == "responses with mine.score >= 0.5, %"
