"""Summaries against figures worked out by hand, their intervals against scipy's, and tables that are not whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import hand_table
from scipy import stats

from tokenshift.analysis import summarise
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.shift.claims import statements
from tokenshift.analysis.shift.evolution import response_accuracy
from tokenshift.analysis.shift.exact_zero_words import exact_zero_rows, exact_zero_words
from tokenshift.analysis.shift.summary import group_estimate, labelled_estimate
from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap, interval
from tokenshift.analysis.token_table.reader import response_batches
from tokenshift.analysis.token_table.schema import write_table


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return hand_table.table()


@pytest.fixture(scope="module")
def summary(table: pa.Table) -> dict[str, Any]:
    return summarise(table, measure="js", resamples=200)["rl"]


BY_HAND = [
    # 7 + 8 + 8 + 10 of 40 tokens
    ("sparsity", "< 0.001", 33 / 40, 40),
    ("sparsity", "< 0.0001", 25 / 40, 40),
    ("sparsity", "< 0.01", 34 / 40, 40),
    ("sparsity", "> 0.1", 4 / 40, 40),
    ("mean", "js", 1.226 / 40, 40),
    ("mean", "js_top_p", 0.613 / 40, 40),
    ("mean", "reverse_kl", 3 * 1.226 / 40, 40),
    # the four first tokens
    ("position_relative", "0", (0.5 + 0.3 + 0.0005 + 0.15) / 4, 4),
    ("position_relative", "0.1", (0.05 + 0 + 0.0005) / 3, 3),
    ("position_relative", "0.4", 0.2 / 3, 3),
    ("position_relative", "0.9", 0.002 / 3, 3),
    ("position_relative_high", "0", 3 / 4, 4),
    ("position_from_start", "1", (0.05 + 0 + 0.0005 + 0.02) / 4, 4),
    ("position_from_start", "4 to 5", (0.2 + 2 * 0.0005) / 8, 8),
    ("position_from_end", "0", (0.002 + 0.0005) / 4, 4),
    # one response has an answer, from its second token on
    ("position_from_answer", "0", 0.05, 1),
    ("position_from_answer", "-1", 0.5, 1),
    ("position_from_answer", "8 to 15", 0.002, 1),
    ("position_from_answer", "16 to 31", None, 0),
    ("entropy_base", "high", 0.9, 4),
    ("entropy_rl", "high", 0.45, 4),
    ("entropy_base", "near_zero", 0.1, 33),
    ("low_entropy_base", "high", 1 / 4, 4),
    ("overlap_high", "1", 1 / 4, 4),
    ("overlap_high", "2", 3 / 4, 4),
    ("overlap_all", "1", 37 / 40, 40),
    ("rank_high", "<= 1", 1 / 4, 4),
    ("rank_high", "<= 3", 3 / 4, 4),
    ("rank_high", "<= 5", 1.0, 4),
    ("improbable_high", "< 0.01", 1 / 4, 4),
    ("improbable_all", "< 0.01", 1 / 40, 40),
    ("mass_base_high", "1", 0.6, 4),
    ("mass_rl_high", "2", 0.6, 4),
    ("mass_moved_high", "1", -0.5, 4),
    ("mass_moved_all", "2", 0.4, 40),
    ("mass_moved_high", "4 to 5", 0.05, 4),
    ("mass_moved_high", "6 to 10", 0.04, 4),
    ("mass_moved_high", "> 10", 0.01, 4),
    ("response", "accuracy", 2 / 3, 3),
    ("response", "length", 10.0, 4),
    ("response", "high tokens", 1.0, 4),
    ("response", "with a high token", 3 / 4, 4),
]


@pytest.mark.parametrize(("name", "label", "value", "count"), BY_HAND)
def test_means_by_hand(summary: dict[str, Any], name: str, label: str, value: float | None, count: int) -> None:
    found = labelled_estimate(summary["all"]["means"][name], label)
    if value is None:
        assert found is None
        return
    assert found is not None
    assert found["value"] == pytest.approx(value, abs=1e-7)
    assert found["n"] == count
    assert found["low"] <= found["value"] <= found["high"] or count < 4


def test_counts_quantiles_and_groups_by_hand(summary: dict[str, Any]) -> None:
    group = summary["all"]
    assert (group["tokens"], group["responses"], group["problems"]) == (40, 4, 3)
    assert (summary["correct"]["tokens"], summary["incorrect"]["tokens"]) == (18, 10)
    quantiles = dict(zip(group["quantiles"]["labels"], group["quantiles"]["value"], strict=True))
    assert quantiles["0.5"] == 0
    assert quantiles["0.9"] == pytest.approx(0.06)  # a tenth of the way from 0.05 to 0.15
    assert quantiles["1"] == pytest.approx(0.5)
    difference = labelled_estimate(summary["correct_minus_incorrect"]["sparsity"], "< 0.001")
    assert difference is not None
    assert difference["value"] == pytest.approx(15 / 18 - 8 / 10)
    joint = group["joint"]
    assert np.sum(joint["entropy_base"]) == 40
    assert np.sum(np.array(joint["entropy_base"])[np.array(joint["js_edges"])[:-1] > 0.09]) == 4
    first = group["identity"]["high"][0]  # "a" begins all four responses, three times above 0.1
    assert (first["token"], first["n"], first["n_high"], first["n_near_zero"]) == ("a", 4, 3, 1)
    assert first["share_high"] == 3 / 4
    assert first["quantiles"][2] == pytest.approx((0.15 + 0.3) / 2)
    assert group["identity"]["frequent_mostly_low"] == 1 / 2  # the other, "e", is high once of four times


def test_truncated_divergences_are_measured_when_asked_for(table: pa.Table) -> None:
    group = summarise(table, measure="js_top_p", resamples=10)["rl"]["all"]
    assert summarise(table, resamples=10)["rl"]["all"] == group  # the default
    assert (group["measure"], group["top_p"]) == ("js_top_p", None)
    assert labelled_estimate(group["means"]["sparsity"], "> 0.1")["n"] == 40  # type: ignore[index]
    assert labelled_estimate(group["means"]["sparsity"], "> 0.1")["value"] == 2 / 40  # type: ignore[index]
    assert labelled_estimate(group["means"]["overlap_high"], "2")["n"] == 2  # type: ignore[index]


def test_exact_zeros_by_hand(table: pa.Table, tmp_path: Path) -> None:
    """25 of 40 tokens; the first problem's are of one token, where both models give it 0.8."""
    masses = np.where(table["problem_id"].to_numpy() == 7, 0.8, 0.6).astype(np.float32)
    for name in ("mass_base_1", "mass_rl_1"):
        table = table.set_column(table.column_names.index(name), name, pa.array(masses))
    js = np.where(table["js"].to_numpy() == 0, 0.03, table["js"].to_numpy()).astype(np.float32)
    js[1] = 0.09
    js_top_p = table["js_top_p"].to_numpy().copy()
    js_top_p[1] = 0
    for name, values in (("js", js), ("js_top_p", js_top_p)):
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    write_table(tmp_path / "table.parquet", table, {"top_p": 0.7})
    for measure in ("js_top_p", "js"):  # they explain the truncated JS, whichever counts
        group = summarise(tmp_path, measure=measure, resamples=20)["rl"]["all"]
        assert group["top_p"] == 0.7
        means = {label: group_estimate(group, "exact_zero", label) for label in ("exact zero", "one token", "other")}
        assert {label: mean["value"] for label, mean in means.items() if mean} == {
            "exact zero": 26 / 40,
            "one token": 16 / 40,
            "other": 10 / 40,
        }
        at_zero = group_estimate(group, "at_exact_zero", "js")
        assert at_zero is not None
        assert at_zero["value"] == pytest.approx((25 * 0.03 + 0.09) / 26)
        assert group["js_max_at_exact_zero"] == np.float32(0.09)
        words = exact_zero_words(group)
        assert "65.0 %" in words
        assert "40.0 % with one and the same token" in words
        assert "up to 0.09 nats" in words
        both = {name: group["means"]["near_zero"]["value"][i] for i, name in enumerate(("js_top_p", "js"))}
        assert both == {"js_top_p": 34 / 40, "js": 8 / 40}
    assert [row[0] for row in exact_zero_rows({"all": group})][:3] == [
        "exactly 0, %",
        "one and the same token is both nuclei, %",
        "exactly 0 for another reason, %",
    ]
    unknown = summarise(table, resamples=5)["rl"]["all"]  # no metadata: the zeros' cause is not told
    assert unknown["means"]["exact_zero"]["labels"] == ["exact zero"]
    assert summarise(table, top_p=0.7, resamples=5)["rl"]["all"]["means"]["exact_zero"]["value"][1] == 16 / 40


def test_quantiles_of_a_resample_without_the_group_are_none_of_its(table: pa.Table) -> None:
    """One incorrect response: resamples without its problem say nothing of it, rather than the largest JS."""
    quantiles = summarise(table, measure="js", resamples=200)["rl"]["incorrect"]["quantiles"]
    assert dict(zip(quantiles["labels"], quantiles["high"], strict=True))["0.5"] < 1e-9


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_batches_change_nothing(
    table: pa.Table, summary: dict[str, Any], tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(table.slice(0, 20), tmp_path / "part-0.parquet", row_group_size=3)
    pq.write_table(table.slice(20), tmp_path / "part-1.parquet", row_group_size=5)
    batches = list(response_batches(tmp_path, rows=rows))
    assert all(batch["position"][0].as_py() == 0 for batch in batches)
    assert pa.concat_tables(batches)["js"].to_pylist() == table["js"].to_pylist()
    monkeypatch.setattr(
        "tokenshift.analysis.shift.summary.response_batches", lambda s, c: response_batches(s, c, rows)
    )
    found = summarise(tmp_path, measure="js", resamples=200)["rl"]
    assert found.keys() == summary.keys()
    for name, listed in summary["all"]["means"].items():
        for key in ("value", "low", "high"):
            pairs = zip(found["all"]["means"][name][key], listed[key], strict=True)
            assert all((a is None) == (b is None) and (a is None or a == pytest.approx(b)) for a, b in pairs)


def test_someone_elses_table(table: pa.Table) -> None:
    """With the columns of the contract alone, and in another order of columns."""
    own = ["trajectory", "js_top_p", *(name for name in table.column_names if name.startswith("mass_"))]
    plain = table.drop_columns(own).select([name for name in reversed(table.column_names) if name not in own])
    with pytest.warns(UserWarning, match="no column 'js_top_p'.*measured is 'js', between whole distributions"):
        group = summarise(plain, resamples=10)["rl"]["all"]
    assert group["measure"] == "js"
    with pytest.raises(ValueError, match="measure='js_top_p' is not a column"):
        summarise(plain, measure="js_top_p")
    assert labelled_estimate(group["means"]["sparsity"], "< 0.001")["value"] == 33 / 40  # type: ignore[index]
    assert "mass_moved_high" not in group["means"]


@pytest.mark.parametrize("kind", ["float64", "Int8", "object", "boolean"])
def test_verdicts_as_pandas_writes_them(table: pa.Table, tmp_path: Path, kind: str) -> None:
    """A missing verdict is neither right nor wrong."""
    frame = table.to_pandas()
    frame["correct"] = frame["correct"].map({True: 1, False: 0}).astype(kind)
    frame["position"] = frame["position"].astype("int64")
    frame.to_parquet(tmp_path / "table.parquet")
    found = summarise(tmp_path / "table.parquet", resamples=5)["rl"]
    assert (found["correct"]["responses"], found["incorrect"]["responses"]) == (2, 1)
    assert labelled_estimate(found["all"]["means"]["response"], "accuracy")["value"] == pytest.approx(2 / 3)  # type: ignore[index]


def test_nothing_high(table: pa.Table) -> None:
    low = table.filter(pa.array(table["problem_id"].to_numpy() == 3))
    group = summarise(low, measure="js", resamples=10)["rl"]["all"]
    assert labelled_estimate(group["means"]["overlap_high"], "2") is None
    assert group["identity"]["high"] == []
    found = statements({**group, "problems": 50})
    assert len(found) == 11  # none is left out
    assert [each.verdict for each in found[-4:]] == ["open"] * 4
    assert found[-1].measured == "no such token"


def test_verdicts(summary: dict[str, Any]) -> None:
    group = {**summary["all"], "means": {**summary["all"]["means"]}, "problems": 50}
    listed = {"labels": ["< 0.001"], "n": [40]}
    cases = ((0.9, 0.85, 0.95, "seen"), (0.9, 0.8, 0.95, "open"), (0.7, 0.6, 0.8, "not seen"))
    for value, low, high, verdict in cases:
        group["means"]["sparsity"] = {**listed, "value": [value], "low": [low], "high": [high]}
        assert statements(group)[0].verdict == verdict
    dense = {**group["means"], "sparsity": {**listed, "value": [0.4], "low": [0.3], "high": [0.5]}}
    denser = {**group, "means": dense}
    assert statements(group, denser)[1].verdict == "seen"
    assert statements(denser, group)[1].verdict == "not seen"
    assert {each.verdict for each in statements(summary["all"])} == {"open"}  # of three problems
    assert len(statements(group)) == 11


def test_intervals_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 30, 60).astype(float)
    sums = rng.binomial(counts.astype(int), rng.uniform(0.1, 0.9, 60)).astype(float)
    low, high = interval(ProblemBootstrap(60, 8000).ratios(sums[:, None], counts[:, None]))
    expected = stats.bootstrap(
        (sums, counts),
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=8000,
        method="percentile",
        random_state=1,
    ).confidence_interval
    assert low[0] == pytest.approx(expected.low, abs=0.004)
    assert high[0] == pytest.approx(expected.high, abs=0.004)
    assert np.isnan(interval(ProblemBootstrap(3, 50).ratios(np.zeros((3, 1)), np.zeros((3, 1))))).all()


def test_intervals_cover() -> None:
    """Responses of a problem go together: an interval by response would cover far less."""
    rng, covered = np.random.default_rng(1), 0
    for seed in range(200):
        chance = rng.beta(2, 2, 50)  # of each problem; 1/2 on average
        sums = rng.binomial(8, chance).astype(float)
        low, high = interval(ProblemBootstrap(50, 300, seed).ratios(sums[:, None], np.full((50, 1), 8.0)))
        covered += bool(low[0] <= 0.5 <= high[0])
    assert 0.89 <= covered / 200 <= 0.99


def test_accuracy_is_by_problem() -> None:
    right = [Trajectory(problem, k, [1], [2], problem < 5) for problem in range(10) for k in range(4)]
    found = response_accuracy([*right, Trajectory(99, 0, [1], [2], None)])
    assert found is not None
    assert (found["value"], found["n"]) == (0.5, 40)
    assert found["high"] - found["low"] > 0.5  # of ten problems, not forty responses
    assert response_accuracy([Trajectory(0, 0, [1], [2], None)]) is None


def test_a_dataframe_has_the_numbers_of_its_table(table: pa.Table) -> None:
    frame = table.to_pandas().set_axis(range(100, 140))
    top_p = 0.7
    assert summarise(frame, resamples=20, top_p=top_p) == summarise(table, resamples=20, top_p=top_p)
    frame["trajectory"] = frame["trajectory"].astype(object)
    assert summarise(frame, resamples=20, top_p=top_p) == summarise(table, resamples=20, top_p=top_p)


def test_bad_tables(table: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must stand together"):
        summarise(table.sort_by("position"))
    with pytest.raises(ValueError, match="must stand together"):
        summarise(table.slice(0, 39))
    with pytest.raises(ValueError, match="is empty"):
        summarise(table.slice(0, 0))
    with pytest.raises(ValueError, match="no column 'entropy_rl'"):
        summarise(table.drop_columns("entropy_rl"))
    with pytest.raises(ValueError, match="no columns 'rank_base', 'rank_rl'"):
        summarise(table.drop_columns(["rank_rl", "rank_base"]).to_pandas())
    with pytest.raises(ValueError, match="no table of columns of one kind each"):
        summarise(table.to_pandas().assign(token=[1, "a"] * 20))
    with pytest.raises(ValueError, match="it has no columns 'problem_id', 'sample_id', 'position', 'length', 'js'"):
        summarise(pa.table({"x": [1]}))
    with pytest.raises(ValueError, match="measure='kl' is not a column"):
        summarise(table, measure="kl")
    with pytest.raises(ValueError, match="neither a Parquet file nor a folder"):
        summarise(tmp_path)
    for name, value in (("js", None), ("token", None), ("trajectory", None), ("js", float("nan"))):
        frame = table.to_pandas().astype({"trajectory": object})
        frame.loc[5, name] = value
        with pytest.raises(ValueError, match=f"The column '{name}' has missing values"):
            summarise(pa.Table.from_pandas(frame))
    frame = table.to_pandas().assign(correct="yes")
    with pytest.raises(ValueError, match="The column 'correct' does not hold bool"):
        summarise(pa.Table.from_pandas(frame))
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(table, tmp_path / "b.parquet")
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"b\.parquet is not a whole Parquet file"):
        summarise(tmp_path)
