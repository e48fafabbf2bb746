"""The evaluation of loaded models in one call, against the recipe that takes models by name."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from helpers.pocket_models import base_and_moved, save_moved

from tokenshift.analysis import Sampling, evaluate
from tokenshift.analysis.evaluation.responses import Grade
from tokenshift.recipes import evaluate as recipe
from tokenshift.recipes.inputs import find_model, grader_of, load_problem_set


def test_has_the_numbers_of_the_recipe(tmp_path: Path) -> None:
    moved = save_moved(tmp_path / "moved", 0.1)
    words = ["--model", str(moved), "--against", "pocket", "--size", "6", "--samples", "3", "--ks", "1", "3"]
    words += ["--batch_size", "9", "--max_new_tokens", "40", "--resamples", "50", "--verify_workers", "1"]
    recipe.run(recipe.prepare([*words, "--output_dir", str(tmp_path / "recipe")]))

    problems = load_problem_set("pocket", size=6)
    sources = {str(moved): find_model("model", str(moved)), "pocket": find_model("against", "pocket")}
    result = evaluate(
        {name: source.load("auto", torch.device("cpu")) for name, source in sources.items()},
        sources["pocket"].tokenizer,
        problems,
        grader_of(problems, "accuracy_reward"),
        sampling=Sampling(max_new_tokens=40),
        samples=3,
        batch_size=9,
        resamples=50,
        set_name="pocket",
    )
    files = sorted((tmp_path / "recipe" / "responses").iterdir())
    rows = {row["model"]: pq.read_table(file).to_pylist() for file in files for row in pq.read_table(file).to_pylist()}
    assert result.table.to_pylist() == rows[str(moved)] + rows["pocket"]
    expected = json.loads((tmp_path / "recipe" / "evaluation.json").read_text())
    assert {name: expected[name] for name in result.summary} == json.loads(json.dumps(result.summary))

    difference = expected["groups"]["pocket"]["comparison"]["mean@3"]
    shown = result.numbers.loc[("pocket", "difference", "mean@3")]
    assert [shown["value"], shown["low"], shown["p_value"]] == [
        difference[name] for name in ("difference", "low", "p_value")
    ]
    assert "mean@3" in result._repr_html_()
    page = result.report()
    assert page.read_text(encoding="utf-8").startswith(f"# Evaluation: {moved} and pocket")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": {}}, "models is empty"),
        ({"samples": 0}, "samples=0 must be at least 1"),
        ({"ks": (1, 9)}, "at most samples=8"),
        ({"ks": ()}, "at most samples=8"),
        ({"problems": []}, "There are no problems"),
    ],
)
def test_a_mistake_is_one_line(arguments: dict[str, Any], message: str) -> None:
    base, _, tokenizer = base_and_moved()
    chosen: dict[str, Any] = {"models": {"base": base}, "problems": ["1 + 1 ="]} | arguments
    with pytest.raises(ValueError, match=message):
        evaluate(chosen.pop("models"), tokenizer, chosen.pop("problems"), ungraded, **chosen)


def ungraded(rows: list[int], texts: list[str]) -> list[Grade]:
    return [Grade(None, False, None, None) for _ in rows]
