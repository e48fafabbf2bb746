"""A user's verifier that gives 0.9 and 0.1, through the recipes: what is counted, and what is said of it."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tokenshift.analysis.comparison.results import problem_accuracies, problem_rewards
from tokenshift.recipes import cross_sample, evaluate
from tokenshift.recipes.jobs.analysis import cross_sampling as cross_arguments
from tokenshift.recipes.jobs.analysis import evaluation as evaluation_arguments

VERIFIER = """from tokenshift.rewards import accuracy_reward

def score(completions, **columns):
    return [None if right is None else 0.1 + 0.8 * right for right in accuracy_reward(completions, **columns)]
"""
QUICK = ["--size", "6", "--max_new_tokens", "120", "--resamples", "20", "--verify_workers", "1"]
EVALUATE = [*QUICK, "--model", "pocket", "--samples", "3", "--ks", "1", "3", "--batch_size", "18"]


@pytest.fixture
def verifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_graded_verifier.py").write_text(VERIFIER)
    monkeypatch.chdir(tmp_path)
    return "my_graded_verifier.score"


def evaluated(out: Path, *words: str) -> tuple[dict[str, Any], str]:
    evaluate.run(evaluation_arguments.prepare([*EVALUATE, "--output_dir", str(out), *words]))
    return json.loads((out / "evaluation.json").read_text()), (out / "evaluation.md").read_text()


def test_evaluation(verifier: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, _ = evaluated(tmp_path / "plain")
    capsys.readouterr()
    graded, page = evaluated(tmp_path / "graded", "--reward_func", verifier, "--correct_threshold", "0.5")
    shown = " ".join(capsys.readouterr().out.split())
    numbers, usual = (result["groups"]["pocket"]["models"]["pocket"] for result in (graded, plain))
    assert 0 < usual["mean@3"]["value"] < 1
    assert numbers["mean@3"] == usual["mean@3"]  # not 0
    assert numbers["pass@3"] == usual["pass@3"]
    assert numbers["reward"]["value"] == pytest.approx(0.1 + 0.8 * usual["mean@3"]["value"])
    assert "reward" not in usual
    assert numbers["majority@3"] is None
    assert usual["majority@3"] is not None
    assert graded["metadata"]["correct_threshold"] == 0.5
    assert graded["metadata"]["answer_extractor"] is None
    for text in (page, shown):
        assert f"A response counts as correct where {verifier} >= 0.5." in text
        assert f"majority@k is n/a: the reward {verifier} names no answer extractor." in text
    assert "mean reward" in shown
    settings = [json.loads((tmp_path / name / "settings.json").read_text()) for name in ("plain", "graded")]
    assert [record.get("correct_threshold") for record in settings] == [None, 0.5]
    responses = tmp_path / "graded" / "responses"
    assert (pq.read_table(responses)["vote"].null_count, pq.read_table(responses).num_rows) == (18, 18)

    # what a comparison reads
    rewards, values = problem_rewards(responses)
    assert set(values) == {0.1, 0.9}
    assert rewards["pocket"] == pytest.approx(0.1 + 0.8 * problem_accuracies(responses)["pocket"])

    # without a threshold nothing is correct, which is told
    never, page = evaluated(tmp_path / "never", "--reward_func", verifier)
    assert never["groups"]["pocket"]["models"]["pocket"]["mean@3"]["value"] == 0
    assert "No response counts as correct: the rewards lie between 0.1 and 0.9" in page

    # a named extractor takes the answers that the reward's own would
    named, _ = evaluated(
        tmp_path / "named", "--reward_func", verifier, "--correct_threshold", "0.5", "--answer_extractor", "math"
    )
    votes = named["groups"]["pocket"]["models"]["pocket"]["majority@3"]
    assert votes["value"] == pytest.approx(usual["majority@3"]["value"])


def test_cross_sampling(verifier: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*QUICK, "--rl_model", "pocket", "--criteria", "js", "--epsilons", "0.1", "--directions", "forward"]
    words += ["--reward_func", verifier, "--output_dir"]
    cross_sample.run(cross_arguments.prepare([*words, str(tmp_path / "out"), "--correct_threshold", "0.5"]))
    summary = json.loads((tmp_path / "out" / "cross.json").read_text())
    (base,) = [cell for cell in summary["cells"] if cell["criterion"] == "none"]
    assert base["reward"]["value"] == pytest.approx(0.1 + 0.8 * base["accuracy"]["value"])
    assert base["accuracy"]["value"] > 0
    assert summary["metadata"]["correct_threshold"] == 0.5
    assert summary["correct"] == f"{verifier} >= 0.5"
    rule = f"Accuracy is the share of responses with {verifier} >= 0.5."
    page = (tmp_path / "out" / "cross.md").read_text()
    assert rule in page
    assert "| mean reward |" in page
    assert rule in " ".join(capsys.readouterr().out.split())
    cross_sample.run(cross_arguments.prepare([*words, str(tmp_path / "never")]))
    remarks = json.loads((tmp_path / "never" / "cross.json").read_text())["remarks"]
    assert remarks[0].startswith("No response counts as correct: the rewards lie between 0.1 and 0.9")
