"""A user's verifier and answer extractor, in a file of the user's own, through the evaluation."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from helpers.launched_recipes import ROOT, finish, start
from helpers.pocket_models import refuse_loading

from tokenshift.analysis.storage.provenance import read_metadata
from tokenshift.recipes import evaluate
from tokenshift.recipes.jobs.analysis import evaluation as evaluation_arguments

RECIPE = ROOT / "recipes" / "evaluate.py"
QUICK = ["--model", "pocket", "--size", "5", "--samples", "6", "--ks", "1", "3", "--batch_size", "30"]
QUICK += ["--max_new_tokens", "50", "--resamples", "50", "--verify_workers", "1"]

VERIFIER = """import re
from tokenshift.rewards import register_extractor, register_reward

@register_extractor("parity_of_the_last_number", equal=lambda a, b: int(a) % 2 == int(b) % 2)
def last_number(completions):
    return [(re.findall(r"[0-9]+", text) or [None])[-1] for text in completions]

@register_reward(extractor="parity_of_the_last_number")
def same_parity(completions, solution, **columns):
    answers = last_number(completions)
    return [float(a is not None and int(a) % 2 == int(b) % 2) for a, b in zip(answers, solution)]
"""


def rows(out: Path) -> list[dict[str, Any]]:
    (file,) = (out / "responses").iterdir()
    found: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return found


def test_a_users_verifier_and_its_extractor_need_one_file(tmp_path: Path) -> None:
    """1 file of 9 lines, and no file of the project is touched."""
    (tmp_path / "parity_rewards.py").write_text(VERIFIER)
    assert len([line for line in VERIFIER.splitlines() if line]) == 9
    out = tmp_path / "out"
    reward = ["--reward_func", "parity_rewards.same_parity"]
    finish(start([str(RECIPE), *QUICK, *reward, "--output_dir", str(out)], tmp_path))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["parity_rewards.py"]
    metadata = json.loads((out / "evaluation.json").read_text())["metadata"]
    assert metadata["reward"] == "parity_rewards.same_parity"
    assert metadata["answer_extractor"] == "parity_of_the_last_number"
    (file,) = (out / "responses").iterdir()
    assert read_metadata(file)["answer_extractor"] == "parity_of_the_last_number"
    settings = json.loads((out / "settings.json").read_text())
    assert settings["reward_func"] == "parity_rewards.same_parity"
    assert "answer_extractor" not in settings  # it was not given, as in folders that were made before it could be
    table = rows(out)
    assert len(table) == 30
    for row in table:
        numbers = re.findall(r"[0-9]+", row["text"])
        assert row["answer"] == (numbers[-1] if numbers else None)
        assert (row["vote"] is None) == (not numbers)
    for problem in range(5):  # whatever the numbers are, there are two parities, and two different votes
        of_problem = [row for row in table if row["problem_id"] == problem and row["answer"] is not None]
        pairs = {(int(row["answer"]) % 2, row["vote"], row["correct"]) for row in of_problem}
        assert len({vote for _, vote, _ in pairs}) == len({parity for parity, _, _ in pairs}) == len(pairs)
    assert len({row["answer"] for row in table}) > 2

    # another extractor of the same folder's is refused, and math's answers are other ones
    with pytest.raises(ValueError, match="holds an analysis with answer_extractor=None, not 'math'"):
        in_folder(tmp_path, [*QUICK, *reward, "--output_dir", str(out), "--answer_extractor", "math"])
    job = in_folder(tmp_path, [*QUICK, *reward, "--output_dir", str(tmp_path / "math"), "--answer_extractor", "math"])
    evaluate.run(job)
    assert json.loads((tmp_path / "math" / "settings.json").read_text())["answer_extractor"] == "math"
    for ours, boxed in zip(table, rows(tmp_path / "math"), strict=True):
        box = re.search(r"\\boxed\{(\d+)\}", ours["text"])
        assert boxed["answer"] == (box and box[1])
        assert (boxed["text"], boxed["correct"]) == (ours["text"], ours["correct"])


def in_folder(folder: Path, words: list[str]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return evaluation_arguments.prepare(words)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--answer_extractor", "maths"], "answer_extractor='maths' is no answer extractor; did you mean math?"),
        (["--answer_extractor", "my_wrong.count"], "answer_extractor='my_wrong.count' gave 0; an answer is text"),
        (["--answer_extractor", "my_wrong.nothing"], "has no nothing"),
        (["--reward_func", "my_wrong.narrow"], "got an unexpected keyword argument 'prompts'. End its arguments with"),
    ],
)
def test_mistakes_are_named_before_a_model_is_loaded(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_wrong.py").write_text(
        "def count(texts):\n    return [len(text) for text in texts]\n"
        "def narrow(completions, solution):\n    return [1.0] * len(completions)\n"
    )
    refuse_loading(monkeypatch)
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        in_folder(tmp_path, [*QUICK, "--output_dir", str(tmp_path / "out"), *arguments])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_reward_that_gives_too_few_numbers_is_named(tmp_path: Path) -> None:
    (tmp_path / "my_short.py").write_text("def short(completions, **columns):\n    return [1.0]\n")
    job = in_folder(tmp_path, [*QUICK, "--output_dir", str(tmp_path / "out"), "--reward_func", "my_short.short"])
    with pytest.raises(ValueError, match=r"The reward my_short.short returned \[1.0\] for 30 completions"):
        evaluate.run(job)
