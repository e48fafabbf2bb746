"""The arguments that name problems are the same ones in every recipe."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from tokenshift.recipes.inputs.problem_arguments import (
    ProblemArguments,
    PromptArguments,
    TrainingProblemArguments,
    value_or_none,
)
from tokenshift.recipes.inputs.problems import load_problem_set, load_problems
from tokenshift.recipes.jobs.analysis.cross_sampling import CrossArguments
from tokenshift.recipes.jobs.analysis.evaluation import EvaluationArguments
from tokenshift.recipes.jobs.analysis.shift import ShiftArguments
from tokenshift.recipes.jobs.sft.preparation import SftControlArguments
from tokenshift.recipes.jobs.training.arguments import RecipeArguments

TRAINING = {
    "dataset_name": "pocket",
    "dataset_config": None,
    "dataset_test_split": "test",
    "train_size": None,
    "eval_size": 256,
    "prompt_column": "prompt",
    "solution_column": "solution",
    "system_prompt": None,
    "prompt_template": None,
}


@pytest.fixture
def file(tmp_path: Path) -> str:
    rows = [{"question": f"{n} + 1", "answer": str(n + 1)} for n in range(10)]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_names_and_defaults_are_as_ever() -> None:
    analysis = {name: value for name, value in TRAINING.items() if name not in ("train_size", "eval_size")}
    del analysis["dataset_test_split"]
    expected = {
        RecipeArguments: TRAINING | {"dataset_train_split": "train"},
        SftControlArguments: TRAINING | {"dataset_split": "train", "completion_column": "completion"},
        ShiftArguments: analysis | {"dataset_split": None, "size": None},
        CrossArguments: analysis | {"dataset_split": None, "size": None},
        EvaluationArguments: dict.fromkeys(
            ["dataset_config", "dataset_split", "prompt_column", "solution_column", "system_prompt", "prompt_template"]
        )
        | {"size": None},
    }
    for arguments, defaults in expected.items():
        declared = {argument.name: argument for argument in fields(arguments)}
        assert {name: declared[name].default for name in defaults} == defaults
        assert all(declared[name].metadata["help"] for name in defaults)


@pytest.mark.parametrize("arguments", [RecipeArguments, SftControlArguments, ShiftArguments, CrossArguments])
def test_a_word_for_none_is_none_everywhere(arguments: type[ProblemArguments]) -> None:
    for word in ("none", "None", "NULL", ""):
        assert arguments(solution_column=word).solution_column is None
        assert value_or_none(word) is None
    assert arguments(solution_column="nonesuch").solution_column == "nonesuch"


@pytest.mark.parametrize(
    "arguments", [RecipeArguments, SftControlArguments, ShiftArguments, CrossArguments, EvaluationArguments]
)
def test_a_template_without_a_prompt_is_refused_before_data_is_read(arguments: type[PromptArguments]) -> None:
    with pytest.raises(ValueError, match=r"prompt_template='Solve it\.' has no \{prompt\} in it"):
        arguments(prompt_template="Solve it.")


@pytest.mark.parametrize("arguments", [RecipeArguments, SftControlArguments])
@pytest.mark.parametrize("name", ["train_size", "eval_size"])
def test_sizes_are_positive(arguments: type[TrainingProblemArguments], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0 must be at least 1"):
        arguments(**{name: 0})


def test_problems_are_those_of_the_loaders(file: str) -> None:
    columns = {"prompt_column": "question", "solution_column": "answer", "prompt_template": "Q: {prompt}"}
    given = {"dataset_name": file, "eval_size": 3, "train_size": 5, **columns}
    arguments = TrainingProblemArguments(**given)
    expected = load_problems(file, eval_size=3, train_size=5, **columns)
    for data, wanted in zip(arguments.training_problems("train"), expected, strict=True):
        assert data.to_list() == wanted.to_list()
    wanted = load_problem_set(file, size=4, **columns)
    assert ProblemArguments(dataset_name=file, **columns).problem_set(None, 4).to_list() == wanted.to_list()
    several = EvaluationArguments(
        datasets=["pocket", file],
        prompt_column=["none", "question"],
        solution_column=["solution", "answer"],
        prompt_template="Q: {prompt}",
        size=4,
    )
    assert several.problems_of(1).to_list() == wanted.to_list()
    assert several.problems_of(0).to_list() == load_problem_set("pocket", size=4).to_list()


def test_all_sums_are_trained_on_where_no_number_is_given() -> None:
    train, held_out = TrainingProblemArguments(dataset_name="sums").training_problems("train")
    assert (len(train), len(held_out)) == (2000, 256)
