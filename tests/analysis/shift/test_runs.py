"""Statements over several runs: means by hand, how often intervals hold the truth, and runs that cannot be pooled."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers.random_table import random_rows

from tokenshift.analysis import summarise, summarise_runs
from tokenshift.analysis.shift.claims import statements
from tokenshift.analysis.shift.runs import Run, RunGroup, run_of_table
from tokenshift.analysis.shift.runs_summary import compared_across_prompts
from tokenshift.analysis.shift.runs_verdicts import denser
from tokenshift.analysis.shift.summary import ProblemSums, problem_sums
from tokenshift.analysis.statistics.bootstrap import ProblemBootstrap, interval
from tokenshift.analysis.statistics.linearised import linearised
from tokenshift.analysis.storage.provenance import table_metadata

LENGTHS = [9, 14, 11, 17, 8, 12, 10, 13, 16, 7, 12, 15]
TRUTH = 0.9


@pytest.fixture(scope="module")
def tables() -> list[pa.Table]:
    return [random_rows(seed, LENGTHS) for seed in range(3)]


def drawn_runs(rng: np.random.Generator, runs: int, truth: float, run_sd: float, problems: np.ndarray) -> list[Run]:
    """Runs whose share of near-zero tokens is `truth` in the mean over runs and problems; lengths are as uneven as
    those of responses, and do not depend on the share."""
    drawn = []
    for index in range(runs):
        counts = np.round(rng.gamma(2.0, 50.0, len(problems)) + 5)
        shares = np.clip(truth + rng.normal(0, run_sd) + problems + rng.normal(0, 0.02, len(problems)), 0, 1)
        sums = rng.binomial(counts.astype(int), shares).astype(float)
        of_kind = ProblemSums(
            np.arange(len(problems)),
            {"sparsity": ["< 0.001"]},
            {"sparsity": sums[:, None]},
            {"sparsity": counts[:, None]},
        )
        groups = {"rl": {"all": {"measure": "js", "problems": len(problems)}}}
        drawn.append(Run(str(index), {}, None, {"js": groups}, {"js": {"rl": of_kind}}))
    return drawn


def test_linearised_values_have_the_ratio_and_its_spread() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(5, 200, 400).astype(float)
    sums = rng.binomial(counts.astype(int), rng.beta(8, 2, 400)).astype(float)
    values = linearised(sums, counts)
    assert values is not None
    assert values.mean() == pytest.approx(sums.sum() / counts.sum(), rel=1e-12)
    resampled = ProblemBootstrap(400, 4000).ratios(sums[:, None], counts[:, None]).std()
    assert values.std(ddof=1) / 20 == pytest.approx(resampled, rel=0.06)
    assert linearised(np.zeros(3), np.zeros(3)) is None


@pytest.mark.parametrize(("runs", "run_sd"), [(3, 0.02), (5, 0.02), (3, 0.0)])
def test_intervals_hold_for_another_run(runs: int, run_sd: float) -> None:
    """300 trials have a standard error of 1.3 points. An interval of one run, by problem, misses other runs."""
    rng = np.random.default_rng(runs)
    held = alone = 0
    for _ in range(300):
        drawn = drawn_runs(rng, runs, TRUTH, run_sd, rng.normal(0, 0.03, 40))
        mean = RunGroup(drawn, "rl", "js").estimate("sparsity", "< 0.001")
        assert mean is not None
        held += mean["low"] <= TRUTH <= mean["high"]
        sums = drawn[0].sums["js"]["rl"]
        low, high = interval(ProblemBootstrap(40, 200).ratios(sums.sums["sparsity"], sums.counts["sparsity"]))
        alone += bool(low[0] <= TRUTH <= high[0])
    assert held / 300 >= 0.92
    assert (alone / 300 < 0.6) == (run_sd > 0)


def test_differences_of_recipes_hold_the_truth_and_no_difference_is_seldom_seen() -> None:
    rng = np.random.default_rng(1)
    held, verdicts = 0, []
    for _ in range(200):
        problems = rng.normal(0, 0.03, 40)
        groups = [
            RunGroup(drawn_runs(rng, runs, truth, sd, problems), "rl", "js")
            for runs, truth, sd in ((3, 0.85, 0.02), (4, 0.9, 0.01), (3, 0.9, 0.01))
        ]
        apart = denser(groups[0], groups[1], "", "", ("a", "b"))
        assert apart.estimate is not None
        held += apart.estimate["low"] <= 0.05 <= apart.estimate["high"]
        verdicts.append(denser(groups[2], groups[1], "", "", ("c", "b")).verdict)
    assert held / 200 >= 0.91
    assert verdicts.count("seen") / 200 <= 0.06
    assert verdicts.count("not seen") / 200 <= 0.06


def test_one_run_is_as_it_was_alone(tables: list[pa.Table]) -> None:
    first, second = (summarise(tables[0], measure=name, resamples=30)["rl"]["all"] for name in ("js_top_p", "js"))
    (group,) = summarise_runs(tables[:1], resamples=30)["kinds"]["rl"]["groups"].values()
    expected = statements(first, second=second)
    assert len(group["statements"]) == len(expected)
    for judged, statement in zip(group["statements"], expected, strict=True):
        (run,) = judged["runs"]
        words = {"open": "open", "seen": "seen in this run", "not seen": "not seen in this run"}
        assert (judged["text"], judged["measured"]) == (statement.text, statement.measured)
        assert (run["measured"], run["second"]) == (statement.measured, statement.second)
        assert judged["verdict"] == run["verdict"] == words[statement.verdict]
    assert {"seen in this run", "not seen in this run"} & {judged["verdict"] for judged in group["statements"]}
    sums = problem_sums(tables[0], measure="js_top_p")["rl"]
    for name, listed in first["means"].items():
        with np.errstate(invalid="ignore"):
            values = sums.sums[name].sum(axis=0) / sums.counts[name].sum(axis=0)
        assert [None if np.isnan(value) else value for value in values] == listed["value"], name


def test_three_runs_are_judged_together_and_two_are_too_few(tables: list[pa.Table]) -> None:
    summary = summarise_runs(tables, measure="js", resamples=20)
    (group,) = summary["kinds"]["rl"]["groups"].values()
    shares = [
        summarise(table, measure="js", resamples=20)["rl"]["all"]["means"]["sparsity"]["value"] for table in tables
    ]
    numbers, labels = group["numbers"]["sparsity"]["< 0.001"], list(group["numbers"]["sparsity"])
    assert numbers["runs"] == pytest.approx([share[labels.index("< 0.001")] for share in shares])
    assert numbers["value"] == pytest.approx(np.mean(numbers["runs"]))
    assert numbers["low"] < numbers["value"] < numbers["high"]
    near_zero = group["statements"][0]
    assert near_zero["verdict"] == "not seen"
    assert f"{100 * numbers['value']:.1f} %" in near_zero["measured"]
    assert ["exactly 0" in near_zero[column] for column in ("measured", "second")] == [False, True]
    assert {judged["verdict"] for judged in group["statements"]} <= {"seen", "not seen", "open"}
    (published,) = summary["kinds"]["rl"]["comparisons"]
    assert (published["measured"], published["verdict"]) == ("no such runs", "open")

    (pair,) = summarise_runs(tables[:2], resamples=20)["kinds"]["rl"]["groups"].values()
    assert {judged["verdict"] for judged in pair["statements"]} == {"open: 2 runs are too few"}
    fewer = [random_rows(seed, LENGTHS[:8]) for seed in range(3)]
    (four,) = summarise_runs(fewer, resamples=20)["kinds"]["rl"]["groups"].values()
    assert {judged["verdict"] for judged in four["statements"]} == {"open"}
    assert four["statements"][0]["measured"].endswith("of 4 problems")


def test_recipes_are_compared_as_the_publication_does(tables: list[pa.Table]) -> None:
    sparse = [random_rows(10 + seed, LENGTHS, largest=0.0001) for seed in range(3)]
    summary = summarise_runs({"SimpleRL": sparse, "DAPO": tables}, sft=[random_rows(20, LENGTHS)], resamples=20)
    by_text = {one["text"]: one for one in summary["kinds"]["rl"]["comparisons"]}
    of_full = {text: (one["second_verdict"], one["groups"]) for text, one in by_text.items()}
    assert of_full == {
        "An SFT shift is denser than SimpleRL's": ("open: 1 run is too few", ["SFT", "SimpleRL"]),
        "An SFT shift is denser than DAPO's": ("open: 1 run is too few", ["SFT", "DAPO"]),
        "DAPO's shifts are denser than SimpleRL's": ("seen", ["DAPO", "SimpleRL"]),
    }
    turned = summarise_runs({"a": sparse, "b": tables}, measure="js", resamples=20)["kinds"]["rl"]["comparisons"]
    assert [(one["text"], one["verdict"]) for one in turned] == [
        ("a's shifts are denser than b's", "not seen"),
        ("DAPO's shifts are denser than SimpleRL's", "open"),
    ]


def described(table: pa.Table, **metadata: Any) -> pa.Table:
    return table.replace_schema_metadata(table_metadata({"top_p": 0.7, "prompts": {"0": "a"}, **metadata}))


def test_runs_that_cannot_be_pooled_are_refused(tables: list[pa.Table]) -> None:
    one = described(tables[0], rl_model="x")
    cases = {
        "'run 1' and 'run 2' have the same numbers": [tables[0], tables[0]],
        "'run 2' has top_p=0.9, not 0.7 as 'run 1'": [one, described(tables[1], rl_model="x", top_p=0.9)],
        "'y' has base_model='b', not None as 'x'": [one, described(tables[1], rl_model="y", base_model="b")],
        "'y' has other problems than 'x'": [one, described(tables[1], rl_model="y", prompts={"0": "b"})],
        "have not the same problems": [tables[0], random_rows(1, LENGTHS[:8])],
        "do not both have js and js_top_p": [tables[0], tables[1].drop_columns(["js_top_p"])],
        "There is no run": [],
    }
    for words, sources in cases.items():
        with pytest.raises(ValueError, match=words) as raised:
            summarise_runs(sources, measure="js" if "do not both" in words else None, resamples=5)
        assert "\n" not in str(raised.value)


def test_recipes_that_were_asked_by_their_own_prompts_are_compared(tables: list[pa.Table]) -> None:
    """As recipes with one prompt are; nothing else about the tables may differ."""
    sparse = [random_rows(10 + seed, LENGTHS, largest=0.0001) for seed in range(3)]
    alike = summarise_runs({"DAPO": tables, "SimpleRL": sparse}, resamples=20)["kinds"]["rl"]["comparisons"]

    def runs(sources: list[pa.Table], **given: Any) -> list[Run]:
        made = [described(table, **given) for table in sources]
        return [run_of_table(table, f"{given} {index}", "js_top_p", resamples=5) for index, table in enumerate(made)]

    own = {"DAPO": runs(tables), "SimpleRL": runs(sparse, prompts={"0": "b"})}
    assert compared_across_prompts(own, "rl", measure="js_top_p") == alike
    own["SimpleRL"] = runs(sparse, prompts={"0": "b"}, samples=8)
    with pytest.raises(ValueError, match="has samples=8, not None"):
        compared_across_prompts(own, "rl", measure="js_top_p")


def test_a_run_without_high_tokens_leaves_their_statements_open(tables: list[pa.Table]) -> None:
    runs = [run_of_table(table, str(n), "js", resamples=5) for n, table in enumerate(tables)]
    runs.append(run_of_table(random_rows(9, LENGTHS, largest=0.05), "low", "js", resamples=5))
    assert RunGroup(runs, "rl", "js").estimate("overlap_high", "2") is None
    assert RunGroup(runs, "rl", "js").estimate("overlap_all", "2") is not None
