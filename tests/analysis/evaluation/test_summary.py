"""From rows of responses to numbers: by hand, with responses that nothing judged, and over several sets."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.text import Text

from tokenshift.analysis.evaluation.figures import at_k_curves
from tokenshift.analysis.evaluation.report import metric_text, write_evaluation_report
from tokenshift.analysis.evaluation.summary import evaluation_summary, problem_values
from tokenshift.analysis.sampling.correctness import none_correct_remark
from tokenshift.analysis.storage.run_folder import RunFolder


def rows(model: str, name: str, verdicts: list[list[bool | None]], votes: list[list[int | None]]) -> list[Any]:
    return [
        {
            "set": name,
            "model": model,
            "problem_id": problem,
            "length": 10 * problem + sample,
            "truncated": sample == 0,
            "formatted": votes[problem][sample] is not None,
            "correct": verdict,
            "vote": votes[problem][sample],
        }
        for problem, own in enumerate(verdicts)
        for sample, verdict in enumerate(own)
    ]


T, F = True, False
FIRST = rows("new", "a", [[T, T, F], [F, T, F], [F, F, F]], [[0, 0, 1], [0, 1, 2], [None, 0, 0]])
SECOND = rows("old", "a", [[T, F, F], [F, F, F], [F, F, F]], [[0, 1, 1], [0, 0, 0], [None, None, None]])
SCHEMA = pa.schema(
    [("set", pa.string()), ("model", pa.string()), ("problem_id", pa.int64()), ("length", pa.int32())]
    + [(name, pa.bool_()) for name in ("truncated", "formatted", "correct")]
    + [("vote", pa.int32())]
)


def table(*parts: list[Any]) -> pa.Table:
    return pa.Table.from_pylist([row for part in parts for row in part], schema=SCHEMA)


def test_by_hand() -> None:
    values = problem_values(table(FIRST), 3, [1, 2, 3])["a", "new"]
    found = {name: each.tolist() for name, each in values.metrics.items()}
    for name in ("mean@3", "pass@1", "majority@1"):
        assert found[name] == pytest.approx([2 / 3, 1 / 3, 0])
    assert found["pass@2"] == pytest.approx([1, 2 / 3, 0])
    assert found["pass@3"] == [1, 1, 0]
    assert found["majority@2"] == pytest.approx([2 / 3, 1 / 3, 0])
    assert found["majority@3"] == pytest.approx([1, 1 / 3, 0])
    assert found["length"] == [1, 11, 21]
    assert found["truncated"] == pytest.approx([1 / 3] * 3)
    assert found["formatted"] == pytest.approx([1, 1, 2 / 3])

    summary = evaluation_summary(table(FIRST, SECOND), 3, [3], resamples=500)
    assert summary["models"] == ["new", "old"]
    group = summary["groups"]["a"]
    assert (group["problems"], group["responses"]) == (3, 9)
    assert group["models"]["new"]["mean@3"]["value"] == pytest.approx(1 / 3)
    comparison = group["comparison"]["mean@3"]
    assert comparison["difference"] == pytest.approx((1 / 3 + 1 / 3 + 0) / 3)
    assert comparison["standard_error"] == pytest.approx(np.std([1 / 3, 1 / 3, 0], ddof=1) / np.sqrt(3))
    assert group["comparison"]["length"]["p_value"] == 1
    alone = evaluation_summary(table(FIRST), 3, [3], resamples=500)["groups"]["a"]
    assert "comparison" not in alone
    assert alone["models"]["new"] == group["models"]["new"]


def test_what_nothing_judged(tmp_path: Any) -> None:
    partly = rows("new", "a", [[T, None, F], [None, None, None]], [[0, 1, None], [0, 0, 0]])
    values = problem_values(table(partly), 3, [2, 3])["a", "new"].metrics
    assert values["mean@3"].tolist() == pytest.approx([0.5, np.nan], nan_ok=True)
    assert values["pass@2"].tolist() == pytest.approx([1, np.nan], nan_ok=True)
    assert np.isnan(values["pass@3"]).all()
    entries = evaluation_summary(table(partly), 3, [2, 3], resamples=50)["groups"]["a"]["models"]["new"]
    assert entries["pass@3"] is None
    assert (entries["mean@3"]["problems"], entries["length"]["problems"]) == (1, 2)
    assert (entries["mean@3"]["value"], entries["mean@3"]["low"]) == (0.5, None)  # one problem has no interval
    assert metric_text("mean@3", entries["mean@3"]) == "50"
    assert metric_text("pass@3", entries["pass@3"]) == "-"

    never = rows("new", "a", [[None], [None]], [[0], [None]])
    summary = write_evaluation_report(RunFolder(tmp_path), table(never), {}, samples=1, ks=[1], resamples=50)
    assert summary["groups"]["a"]["models"]["new"]["length"]["value"] == 5
    assert "| mean@1, % | - |" in (tmp_path / "evaluation.md").read_text()
    assert any(text.get_text() == "no response was judged" for text in at_k_curves(summary, "").axes[0].texts)


def test_several_sets() -> None:
    more = [rows("new", "b", [[T, T, T]], [[0, 0, 0]]), rows("old", "b", [[F, F, F]], [[0, 1, 2]])]
    summary = evaluation_summary(table(FIRST, more[0], SECOND, more[1]), 3, [1], resamples=50)
    assert list(summary["groups"]) == ["a", "b", "all problems", "mean of the sets"]
    pooled, sets = (summary["groups"][name] for name in ("all problems", "mean of the sets"))
    assert pooled["models"]["new"]["mean@3"]["value"] == pytest.approx((1 + 1) / 4)
    assert sets["models"]["new"]["mean@3"]["value"] == pytest.approx((1 / 3 + 1) / 2)
    assert pooled["comparison"]["mean@3"]["difference"] == pytest.approx((2 / 3 + 1) / 4)
    assert sets["comparison"]["mean@3"]["difference"] == pytest.approx((2 / 9 + 1) / 2)
    assert sets["comparison"]["mean@3"]["p_value"] is None  # the second set has one problem
    assert len([axes for axes in at_k_curves(summary, "").axes if axes.get_visible()]) == 4


def test_other_problems_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="other problems of the set 'a'"):
        evaluation_summary(table(FIRST, SECOND[:6]), 3, [1])


def graded(model: str, rewards: list[list[float | None]]) -> list[Any]:
    """Rows whose verdicts are those of a threshold of 0.5, without votes."""
    verdicts = [[None if reward is None else reward >= 0.5 for reward in problem] for problem in rewards]
    parts = rows(model, "a", verdicts, [[None] * len(problem) for problem in rewards])
    flat = [reward for problem in rewards for reward in problem]
    return [{**row, "reward": reward} for row, reward in zip(parts, flat, strict=True)]


def test_the_mean_of_graded_rewards_stands_beside_the_accuracy(tmp_path: Any) -> None:
    schema = SCHEMA.append(pa.field("reward", pa.float64()))
    parts = graded("new", [[0.9, 0.1], [0.9, None]]) + graded("old", [[0.1, 0.1], [0.3, 0.1]])
    responses = pa.Table.from_pylist(parts, schema=schema)
    summary = evaluation_summary(responses, 2, [1, 2], resamples=50, voting=False)
    new, old = (summary["groups"]["a"]["models"][name] for name in ("new", "old"))
    assert new["reward"]["value"] == pytest.approx((0.5 + 0.9) / 2)
    assert old["reward"]["value"] == pytest.approx(0.15)
    assert new["mean@2"]["value"] == pytest.approx(0.75)
    assert (old["mean@2"]["value"], old["pass@2"]["value"]) == (0, 0)
    assert new["majority@1"] is new["majority@2"] is None  # never 0
    assert summary["metrics"][:6] == ["mean@2", "pass@1", "pass@2", "majority@1", "majority@2", "reward"]

    metadata = {"reward": "mine.score", "correct_threshold": 0.5, "answer_extractor": None}
    written = write_evaluation_report(RunFolder(tmp_path), responses, metadata, samples=2, ks=[1, 2], resamples=50)
    page = (tmp_path / "evaluation.md").read_text()
    assert "| mean reward | 0.7 [" in page
    assert "| majority@2, % | n/a | n/a | n/a | n/a | n/a |" in page
    assert "A response counts as correct where mine.score >= 0.5." in page
    assert "majority@k is n/a: the reward mine.score names no answer extractor." in page
    saved = json.loads((tmp_path / "evaluation.json").read_text())
    assert saved["groups"]["a"]["models"]["old"]["majority@2"] is None
    assert saved["metadata"]["answer_extractor"] is None
    assert saved["notes"] == written["notes"]
    figure = at_k_curves(written, "new and old", "mine.score >= 0.5")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["pass@k, new", "pass@k, old"]
    assert any("correct: mine.score >= 0.5" in " ".join(text.get_text().split()) for text in figure.findobj(Text))

    # a threshold that no reward reaches is told, with the rewards that there are
    never = pa.Table.from_pylist([{**row, "correct": False} for row in parts], schema=schema)
    notes = write_evaluation_report(RunFolder(tmp_path), never, {}, samples=2, ks=[1], resamples=50)["notes"]
    assert notes == ["majority@k is n/a: no response has a vote.", none_correct_remark([0.1, 0.9])]


def test_without_graded_rewards_all_is_as_it_was() -> None:
    plain = table(FIRST, SECOND)
    rewards = pa.array([None if row["correct"] is None else float(row["correct"]) for row in FIRST + SECOND])
    with_rewards = plain.append_column("reward", rewards)
    assert evaluation_summary(with_rewards, 3, [3], resamples=50) == evaluation_summary(plain, 3, [3], resamples=50)
