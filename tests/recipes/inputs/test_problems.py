"""Problems from files and folders, and what a wrong name or column says."""

import json
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from tokenshift.recipes.inputs.problems import load_problems
from tokenshift.recipes.inputs.sums import sums_dataset

ROWS = [{"question": f"{i}+1?", "answer": str(i + 1), "level": i % 3} for i in range(20)]
COLUMNS = {"prompt_column": "question", "solution_column": "answer"}


@pytest.fixture(params=["json", "jsonl", "parquet", "csv", "folder", "folder with splits"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    data, kind = Dataset.from_list(ROWS), request.param
    path = tmp_path / f"data.{kind}"
    if kind == "json":
        path.write_text(json.dumps(ROWS))
    elif kind == "jsonl":
        data.to_json(path)
    elif kind == "parquet":
        data.to_parquet(path)
    elif kind == "csv":
        data.to_csv(path)
    elif kind == "folder":
        data.save_to_disk(path)
    else:
        DatasetDict({"train": data, "test": data.select(range(6))}).save_to_disk(path)
    return str(path)


def test_every_source(source: str) -> None:
    train, held_out = load_problems(source, eval_size=5, **COLUMNS)
    assert len(held_out) == 5
    for part in (train, held_out):
        assert set(part.column_names) == {"prompt", "solution", "level"}
        assert all(int(str(row["solution"])) == int(row["prompt"].split("+")[0]) + 1 for row in part)
    if "splits" not in source:
        assert len(train) == 15
        assert not set(train["prompt"]) & set(held_out["prompt"])
    again, _ = load_problems(source, eval_size=5, **COLUMNS)
    assert again.to_list() == train.to_list()


def test_template_system_prompt_and_size(tmp_path: Path) -> None:
    Dataset.from_list(ROWS).to_parquet(tmp_path / "data.parquet")
    train, _ = load_problems(
        str(tmp_path / "data.parquet"),
        eval_size=5,
        train_size=3,
        system_prompt="Be brief.",
        prompt_template="{prompt} Box {it}.",
        **COLUMNS,
    )
    assert len(train) == 3
    system, user = train[0]["prompt"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"].endswith("+1? Box {it}.")


def test_existing_columns_give_way_to_the_chosen_ones(tmp_path: Path) -> None:
    rows = [{"prompt": "old", "problem": f"p{i}", "solution": "long proof", "answer": "1"} for i in range(9)]
    Dataset.from_list(rows).to_parquet(tmp_path / "data.parquet")
    train, _ = load_problems(
        str(tmp_path / "data.parquet"), eval_size=2, prompt_column="problem", solution_column="answer"
    )
    assert set(train.column_names) == {"prompt", "solution"}
    assert train[0]["prompt"].startswith("p")
    assert train[0]["solution"] == "1"


def test_a_field_of_a_column_is_the_solution(tmp_path: Path) -> None:
    """As in verl's data."""
    rows = [{"prompt": f"q{i}", "reward_model": {"style": "rule", "ground_truth": str(i)}} for i in range(9)]
    Dataset.from_list(rows).to_parquet(tmp_path / "data.parquet")
    file = str(tmp_path / "data.parquet")
    for data in load_problems(file, eval_size=2, solution_column="reward_model.ground_truth"):
        assert [f"q{row['solution']}" for row in data] == list(data["prompt"])
        assert data[0]["reward_model"]["style"] == "rule"
    with pytest.raises(ValueError, match=r"it has 'prompt', 'reward_model\.style', 'reward_model\.ground_truth'"):
        load_problems(file, eval_size=2, solution_column="reward_model.answer")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompt_column": "problem"}, "prompt_column='problem' is not in the data; it has 'question', 'answer'"),
        ({"solution_column": "gold"}, "solution_column='gold' is not in the data; it has"),
        ({"train_split": "training"}, "has no split 'training'; it has 'train'"),
        ({"eval_size": 20}, "20 rows are too few to hold eval_size=20"),
        ({"prompt_template": "no place"}, "has no {prompt} in it"),
    ],
)
def test_wrong_settings(tmp_path: Path, settings: dict, words: str) -> None:
    Dataset.from_list(ROWS).to_parquet(tmp_path / "data.parquet")
    with pytest.raises(ValueError, match=words):
        load_problems(str(tmp_path / "data.parquet"), **{"eval_size": 5, **COLUMNS, **settings})


def test_columns_may_change_places(tmp_path: Path) -> None:
    rows = [{"prompt": f"a{i}", "solution": f"q{i}"} for i in range(9)]
    Dataset.from_list(rows).to_parquet(tmp_path / "data.parquet")
    train, _ = load_problems(
        str(tmp_path / "data.parquet"), eval_size=2, prompt_column="solution", solution_column="prompt"
    )
    assert {(row["prompt"][0], row["solution"][0]) for row in train} == {("q", "a")}


def test_no_solutions(tmp_path: Path) -> None:
    Dataset.from_list([{"prompt": f"q{i}"} for i in range(9)]).to_parquet(tmp_path / "data.parquet")
    train, _ = load_problems(str(tmp_path / "data.parquet"), eval_size=2, solution_column=None)
    assert train.column_names == ["prompt"]


@pytest.mark.parametrize(
    ("rows", "settings", "words"),
    [
        ([{"prompt": "q", "solution": None}] * 9, {}, "solution_column='solution' is empty in every row"),
        ([{"prompt": "q", "solution": "1"}] * 8 + [{"prompt": None, "solution": "1"}], {}, "is empty in 1 rows"),
        ([{"prompt": 3, "solution": "1"}] * 9, {}, "holds int; prompts are text or conversations"),
        ([{"prompt": "q", "solution": "1"}] * 9, {"solution_column": "prompt"}, "are both 'prompt'"),
        (
            [{"prompt": [{"role": "user", "content": "q"}], "solution": "1"}] * 9,
            {"prompt_template": "{prompt}"},
            "prompt_template is for prompts that are text",
        ),
    ],
)
def test_odd_values(tmp_path: Path, rows: list[dict], settings: dict, words: str) -> None:
    Dataset.from_list(rows).to_parquet(tmp_path / "data.parquet")
    with pytest.raises(ValueError, match=words):
        load_problems(str(tmp_path / "data.parquet"), **{"eval_size": 1, **settings})


def test_made_data_takes_no_template() -> None:
    with pytest.raises(ValueError, match="is made as it is"):
        load_problems("pocket", prompt_template="{prompt}!")


@pytest.mark.parametrize(
    "name", ["missing.json", "no/such-dataset", "broken.parquet", "broken.json", "empty.jsonl", "empty.csv"]
)
def test_unreadable_data_is_one_line(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("broken.parquet", "broken.json"):
        (tmp_path / file).write_text("{ this is neither")
    for file in ("empty.jsonl", "empty.csv"):
        (tmp_path / file).touch()
    with pytest.raises(ValueError, match="dataset_name=") as error:
        load_problems(name)
    assert "\n" not in str(error.value)


def test_sums_are_split_and_right() -> None:
    train, held_out = sums_dataset("train", 1500), sums_dataset("eval", 400)
    assert not set(train["problem_id"]) & set(held_out["problem_id"])
    for row in held_out:
        assert eval(row["problem_id"]) == int(row["solution"])
        assert row["prompt"].endswith("= ?\nA:")
    with pytest.raises(ValueError, match="holds 1 to 500 problems"):
        sums_dataset("eval", 501)
