"""The shift analysis of loaded models in one call, against the recipe that takes models by name."""

import gc
import html as html_module
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from helpers.pocket_models import base_and_moved, save_moved
from matplotlib.figure import Figure

from tokenshift.analysis import Prompt, Sampling, ShiftAnalysis, Trajectory, analyze
from tokenshift.analysis.token_table.schema import TABLE_SCHEMA
from tokenshift.recipes import analyze_shift
from tokenshift.recipes.inputs import find_model, judge_of, load_problem_set
from tokenshift.recipes.pocket.problems import pocket_dataset

TINY: dict[str, Any] = {"samples": 2, "batch_size": 4, "batch_tokens": 150, "report_responses": 3, "resamples": 20}


@pytest.fixture(scope="module")
def models() -> tuple[Any, Any, Any]:
    return base_and_moved()


@pytest.fixture(scope="module")
def shift(models: tuple[Any, Any, Any]) -> ShiftAnalysis:
    prompts = [f"Q: {a} + {a} = ?\nA:" for a in (1, 2, 3)]
    return analyze(*models, prompts, sampling=Sampling(max_new_tokens=12), rl_name="<moved>", **TINY)


def test_has_the_numbers_of_the_recipe(tmp_path: Path) -> None:
    import torch

    moved = save_moved(tmp_path / "moved", 0.03)
    words = ["--rl_model", str(moved), "--output_dir", str(tmp_path / "recipe"), "--trajectories", "both"]
    words += ["--size", "6", "--max_new_tokens", "30", "--verify_workers", "1"]
    words += [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    analyze_shift.run(analyze_shift.prepare(words))

    problems = load_problem_set("pocket", size=6)
    base, rl = find_model("base", "pocket"), find_model("rl", str(moved))
    device = torch.device("cpu")
    shift = analyze(
        base.load("auto", device),
        rl.load("auto", device),
        base.tokenizer,
        problems,
        judge=judge_of(problems, "accuracy_reward"),
        trajectories="both",
        sampling=Sampling(max_new_tokens=30),
        output_dir=tmp_path / "call",
        **TINY,
    )
    (part,) = (tmp_path / "recipe" / "table").glob("*.parquet")
    assert shift.table.replace_schema_metadata().equals(pq.read_table(part).replace_schema_metadata())
    recipe_summary = json.loads((tmp_path / "recipe" / "summary.json").read_text())
    assert json.loads(json.dumps(shift.summary)) == recipe_summary["kinds"]
    assert shift.metadata["prompts"] == recipe_summary["metadata"]["prompts"]
    page = shift.report(tmp_path / "page.html")
    assert page == tmp_path / "page.html"
    assert json.loads((tmp_path / "call" / "summary.json").read_text())["kinds"] == recipe_summary["kinds"]
    names = {path.name for path in (tmp_path / "recipe" / "figures").glob("*.png")}
    assert {f"{name}.png" for name in shift.figures} == names
    assert all(isinstance(figure, Figure) for figure in shift.figures.values())


def test_shows_itself(shift: ShiftAnalysis, tmp_path: Path) -> None:
    assert shift.table.schema.remove_metadata() == TABLE_SCHEMA
    assert shift.table["correct"].null_count == shift.table.num_rows  # nothing judged
    html = shift._repr_html_()
    assert "&lt;moved&gt;" in html
    assert "<moved>" not in html
    assert "mean JS, nats" in html
    means = shift.summary["rl"]["all"]["means"]["sparsity"]
    value = means["value"][means["labels"].index("< 0.001")]
    assert shift.numbers.loc[("rl", "share with JS < 0.001"), "value"] == value
    assert "responses 6, problems 3" in repr(shift)
    assert shift.report() == shift.folder.path / "report.html"
    frame = shift.explore(height=500)._repr_html_()
    inside = html_module.unescape(re.search(r'srcdoc="([^"]*)"', frame)[1])  # type: ignore[index]
    assert inside == shift.report().read_text(encoding="utf-8")
    assert "height:500px" in frame
    assert 'sandbox="allow-scripts allow-downloads"' in frame
    assert "near zero" in shift.report(tmp_path / "new" / "page.html").read_text(encoding="utf-8")


def test_shows_a_response(shift: ShiftAnalysis) -> None:
    frame = shift.table.to_pandas()
    responses = list(frame.groupby(["problem_id", "sample_id"], sort=False))
    moved = [int((rows["js_top_p"] > 0.1).sum()) for _, rows in responses]
    shown = shift.show()
    assert shown.is_high.sum() == max(moved)
    assert list(shown.tokens) == responses[moved.index(max(moved))][1]["token"].tolist()
    for number, (key, rows) in enumerate(responses):
        by_key = shift.show(response=key, column="js")
        assert by_key.values.tolist() == rows["js"].tolist()
        assert by_key.tokens == shift.show(number).tokens == shift.show((*key, "rl")).tokens == rows["token"].tolist()
        assert by_key.prompt == shift.metadata["prompts"][str(key[0])]
    other = shift.show(0, "reverse_kl")
    assert other.largest == pytest.approx(frame["reverse_kl"].max())
    assert other.high is None
    assert "reverse_kl, nats" in other._repr_html_()
    assert "JS(base, RL) at top-p" in shift.show(0)._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"response": 6}, "response=6 must be a whole number from 0 to 5"),
        ({"response": -1}, "response=-1 must be"),
        ({"response": (9, 0)}, r"response=\(9, 0\) is not there; .* such as \(0, 0, 'rl'\)"),
        ({"response": (0, 0, "base")}, "is not there"),
        ({"column": "rank_rl"}, "column='rank_rl' cannot shade tokens; choose js_top_p, js"),
    ],
)
def test_what_cannot_be_shown(shift: ShiftAnalysis, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shift.show(**arguments)


def test_exports_its_table(shift: ShiftAnalysis, tmp_path: Path) -> None:
    path = shift.export(tmp_path / "tokens.tsv", columns=["token_id", "js"])
    read = pd.read_csv(path, sep="\t")
    assert read["token_id"].tolist() == shift.table["token_id"].to_pylist()
    assert read["js"].astype("float32").tolist() == shift.table["js"].to_pylist()


def test_a_temporary_folder_goes_with_the_result(models: tuple[Any, Any, Any]) -> None:
    shift = analyze(*models, ["Q: 1 + 1 = ?\nA:"], sampling=Sampling(max_new_tokens=4), resamples=5)
    path = shift.folder.path
    assert path.is_dir()
    del shift
    gc.collect()
    assert not path.exists()


def test_models_keep_their_modes_and_responses_fit_by_default(models: tuple[Any, Any, Any]) -> None:
    base, moved, tokenizer = models
    moved.train()
    shift = analyze(base, moved, tokenizer, ["Q: 1 + 1 = ?\nA:"], resamples=5, report_responses=0)
    assert moved.training
    assert not base.training
    moved.eval()
    context = base.config.max_position_embeddings
    assert shift.metadata["max_new_tokens"] == min(1024, context - len(tokenizer("Q: 1 + 1 = ?\nA:")["input_ids"]))


def test_takes_trajectories_and_every_kind_of_problems(models: tuple[Any, Any, Any]) -> None:
    tokenizer = models[2]
    data = pocket_dataset("analysis", 2)
    settings = {"sampling": Sampling(max_new_tokens=8), "resamples": 5, "report_responses": 0}
    of_dataset = analyze(*models, data, **settings)
    of_list = analyze(*models, list(data["prompt"]), **settings)
    prompts = [Prompt(n, text, list(tokenizer(text)["input_ids"])) for n, text in enumerate(data["prompt"])]
    of_prompts = analyze(*models, prompts, **settings)
    assert of_dataset.table.equals(of_list.table)
    assert of_dataset.table.equals(of_prompts.table)
    ids = of_dataset.table.filter(of_dataset.table["problem_id"].to_numpy() == 1)["token_id"].to_pylist()
    given = analyze(*models, trajectories=[Trajectory(1, 0, prompts[1].ids, ids, True)], resamples=5)
    assert set(given.table["trajectory"].to_pylist()) == {"given"}
    assert given.summary["given"]["correct"]["tokens"] == len(ids)
    assert given.metadata["prompts"]["1"] == tokenizer.decode(prompts[1].ids)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"problems": None}, "There is nothing to analyze: give problems"),
        ({"problems": []}, "There are no problems"),
        ({"problems": [""]}, "The prompt of row 0 is empty"),
        ({"problems": Dataset.from_dict({"question": ["1"]})}, "no column 'prompt'; their columns are question"),
        ({"trajectories": "sft"}, "trajectories='sft' is not known; choose rl, base, both"),
        ({"trajectories": []}, "the given trajectories have no token"),
        ({"trajectories": [Trajectory(0, 0, [1], [2] * 5000)]}, "has 5001 tokens, but the model reads"),
        ({"sampling": Sampling(max_new_tokens=5000)}, "lower max_new_tokens"),
        ({"samples": 0}, "samples=0 must be at least 1"),
        ({"report_responses": -1}, "report_responses=-1 must be at least 0"),
    ],
)
def test_a_mistake_is_one_line(models: tuple[Any, Any, Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        analyze(*models, **({"problems": ["1 + 1 ="]} | arguments))
    assert "\n" not in str(error.value)


def test_a_folder_with_results_is_refused(models: tuple[Any, Any, Any], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not an empty folder"):
        analyze(*models, ["1 + 1 ="], output_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
