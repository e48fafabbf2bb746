"""Evaluation from models to rows and numbers: killed, shared by processes, and given wrong input."""

import json
import re
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from helpers.launched_recipes import DDP, ROOT, finish, kill_once, start
from helpers.pocket_models import BASE, refuse_loading, save_moved
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenshift.analysis.evaluation.responses import RESPONSE_SCHEMA, read_responses
from tokenshift.analysis.sampling.generators import Sampling, TransformersGenerator
from tokenshift.analysis.sampling.requests import Request
from tokenshift.analysis.sampling.token_ids import encode_prompt
from tokenshift.analysis.storage.provenance import read_metadata
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.recipes import evaluate
from tokenshift.recipes.jobs.analysis import evaluation as evaluation_arguments
from tokenshift.recipes.pocket.problems import pocket_dataset

RECIPE = ROOT / "recipes" / "evaluate.py"
QUICK = ["--size", "6", "--samples", "4", "--ks", "1", "3", "--batch_size", "12", "--max_new_tokens", "50"]
QUICK += ["--resamples", "200", "--verify_workers", "1"]


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_moved(tmp_path_factory.mktemp("moved"), 0.1)


def words(moved: Path, out: Path, *arguments: str) -> list[str]:
    return ["--model", str(moved), "--against", "pocket", "--output_dir", str(out), *QUICK, *arguments]


def run(words: list[str]) -> None:
    evaluate.run(evaluation_arguments.prepare(words))


def contents(out: Path) -> dict[str, pa.Table]:
    return {path.name: pq.read_table(path) for path in sorted((out / "responses").iterdir())}


def numbers(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "evaluation.json").read_text())
    return found


@pytest.fixture(scope="module")
def undisturbed(moved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    run(words(moved, out))
    return out


def test_its_record_alone_makes_the_same_rows(undisturbed: Path, tmp_path: Path) -> None:
    run(["--config", str(undisturbed / "config.yaml"), "--output_dir", str(tmp_path)])
    ours, theirs = contents(tmp_path), contents(undisturbed)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equals(theirs[name]) for name in theirs)


def test_leaves_what_it_promises(undisturbed: Path, moved: Path) -> None:
    out, problems = undisturbed, pocket_dataset("analysis", 6)
    table = read_responses(RunFolder(out), [str(moved), "pocket"], ["pocket"])
    assert table.num_rows == 2 * 6 * 4
    assert all(each.schema.remove_metadata() == RESPONSE_SCHEMA for each in contents(out).values())
    assert {read_metadata(path)["model"] for path in (out / "responses").iterdir()} == {str(moved), "pocket"}
    rows = table.to_pylist()
    for row in rows:
        box = re.search(r"\\boxed\{(\d+)\}", row["text"])
        assert row["answer"] == (box and box[1])
        assert row["formatted"] == (row["text"].count("\\boxed{") == 1 and box is not None)
        assert row["correct"] == (row["answer"] == problems["solution"][row["problem_id"]])
        assert (row["vote"] is None) == (row["answer"] is None)
        assert row["length"] == len(row["completion_ids"])
        assert row["truncated"] == (row["completion_ids"][-1] != AutoTokenizer.from_pretrained(BASE).eos_token_id)
        assert not row["truncated"] or row["length"] == 50
    assert {row["truncated"] for row in rows} == {row["correct"] for row in rows} == {True, False}
    for row in rows:
        same = [other for other in rows if (other["model"], other["problem_id"]) == (row["model"], row["problem_id"])]
        assert {other["answer"] for other in same if other["vote"] == row["vote"]} == {row["answer"]}

    # draws are the project's own, the same for both models
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    for name in (str(moved), "pocket"):
        model = AutoModelForCausalLM.from_pretrained(BASE if name == "pocket" else name).eval()
        requests = [Request((3, sample), encode_prompt(tokenizer, problems["prompt"][3])) for sample in range(4)]
        drawn = TransformersGenerator(model, tokenizer, Sampling(1.0, 0.7, 50, 0))(requests)
        assert drawn == [r["completion_ids"] for r in rows if (r["model"], r["problem_id"]) == (name, 3)]

    summary = numbers(out)
    group = summary["groups"]["pocket"]
    for name in (str(moved), "pocket"):
        passed = []
        for problem in range(6):
            own = [row["correct"] for row in rows if (row["model"], row["problem_id"]) == (name, problem)]
            draws = list(combinations(own, 3))
            passed.append(sum(map(any, draws)) / len(draws))
        assert group["models"][name]["pass@3"]["value"] == pytest.approx(sum(passed) / 6)
    assert group["comparison"]["mean@4"]["problems"] == 6
    page = (out / "evaluation.md").read_text()
    assert "| majority@3, % |" in page
    assert "6 problems, 24 responses of each model." in page
    assert [path.name for path in sorted((out / "figures").iterdir())] == ["at_k.png", "at_k.svg"]
    assert not (out / "units").exists()


def test_responses_do_not_depend_on_the_batch(undisturbed: Path, moved: Path, tmp_path: Path) -> None:
    alone = ["--model", str(moved), "--output_dir", str(tmp_path), *QUICK]
    run([*alone, "--batch_size", "3"])  # less than a problem's responses
    (name,) = contents(tmp_path)
    assert contents(tmp_path)[name].equals(contents(undisturbed)[name])


def test_more_sets_and_models_leave_the_others_as_they_are(
    undisturbed: Path, moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    before = {path: path.stat().st_mtime_ns for path in (out / "responses").iterdir()}
    with monkeypatch.context() as patch:
        refuse_loading(patch, "sampled again")
        run(words(moved, out))
        same(out, undisturbed)
        run(words(moved, out, "--ks", "4", "--resamples", "50"))
        assert numbers(out)["ks"] == [4]
    printed = capsys.readouterr().out
    assert "minimum detectable" in printed
    assert max(len(line) for line in printed.splitlines() if "/" not in line) <= 80

    asked = [{"ask": f"Q: {n}+{n}=?\nA: ", "gold": str(2 * n)} for n in (11, 12, 13)]
    mine = tmp_path / "mine.jsonl"
    mine.write_text("".join(json.dumps(row) + "\n" for row in asked))
    more = ["--datasets", "pocket", str(mine), "--prompt_column", "none", "ask", "--solution_column", "none", "gold"]
    stopped = out / "units" / "responses" / "another-model-000000.parquet"
    stopped.parent.mkdir(parents=True)
    shutil.copy(next(iter(before)), stopped)
    run(words(moved, out, *more))
    assert stopped.exists()  # to be gone on with when that model is asked for
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert len(contents(out)) == 4
    groups = numbers(out)["groups"]
    assert {name: group["problems"] for name, group in groups.items()} == {
        "pocket": 6,
        str(mine): 3,
        "all problems": 9,
        "mean of the sets": 9,
    }
    assert groups["pocket"] == numbers(undisturbed)["groups"]["pocket"]

    # a set that changed is not taken for the one that is there
    mine.write_text(mine.read_text().replace("22", "23"))
    with pytest.raises(ValueError, match=f"other contents of set {mine}"):
        evaluation_arguments.prepare(words(moved, out, *more))
    with pytest.raises(ValueError, match="seed=0, not 1"):
        evaluation_arguments.prepare(words(moved, out, "--seed", "1"))
    evaluation_arguments.prepare(words(moved, out, "--seed", "1", "--overwrite", "true"))
    assert not (out / "responses").exists()


def test_the_same_model_twice_is_said(moved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(words(moved, tmp_path, "--model", "pocket"))
    assert "Both are the same model" in capsys.readouterr().out
    assert "Both are the same model" in (tmp_path / "evaluation.md").read_text()
    table = read_responses(RunFolder(tmp_path), ["pocket", "pocket (again)"], ["pocket"])
    first, again = table.slice(0, 24), table.slice(24)
    assert first.drop_columns("model").equals(again.drop_columns("model"))
    comparison = numbers(tmp_path)["groups"]["pocket"]["comparison"]["mean@4"]
    assert (comparison["difference"], comparison["p_value"], comparison["detectable"]) == (0, 1, None)


def test_models_may_have_different_tokenizers_and_sets_no_answers(moved: Path, tmp_path: Path) -> None:
    """Two letters swapped in one model's tokenizer and in its embeddings: prompts have other ids, and are as ever."""
    other = tmp_path / "other"
    shutil.copytree(moved, other)
    tokens = AutoTokenizer.from_pretrained(moved).get_vocab()
    file = other / "tokenizer.json"
    swapped = file.read_text()
    for old, new in (('"4":', '"#":'), ('"7":', '"4":'), ('"#":', '"7":')):
        swapped = swapped.replace(old, new)
    file.write_text(swapped)
    model: Any = AutoModelForCausalLM.from_pretrained(moved)
    with torch.no_grad():
        for weight in {id(p): p for p in (model.get_input_embeddings().weight, model.lm_head.weight)}.values():
            weight[[tokens["4"], tokens["7"]]] = weight[[tokens["7"], tokens["4"]]]
    model.save_pretrained(other)
    problems = tmp_path / "problems.jsonl"
    problems.write_text(json.dumps({"prompt": "Q: 47+47=?\nA: "}) + "\n")
    given = ["--against", str(other), "--datasets", str(problems), "--solution_column", "none", "--top_p", "0.001"]
    job = evaluation_arguments.prepare(words(moved, tmp_path / "out", *given))
    assert len(job.notes) == 1
    assert "different tokenizers" in job.notes[0]
    evaluate.run(job)
    table = read_responses(job.folder, [str(moved), str(other)], [str(problems)]).to_pylist()
    assert table[0]["prompt_ids"] != table[4]["prompt_ids"]
    assert [row["text"] for row in table[:4]] == [row["text"] for row in table[4:]]  # greedy: no draw decides
    assert {row["correct"] for row in table} == {None}
    entries = numbers(tmp_path / "out")["groups"][str(problems)]["models"][str(moved)]
    assert entries["mean@4"] is None
    assert entries["length"]["value"] > 0


def same(ours: Path, theirs: Path) -> None:
    found, expected = contents(ours), contents(theirs)
    assert found.keys() == expected.keys()
    for name, table in found.items():
        assert table.equals(expected[name]), name
    for name in ("evaluation.md", "evaluation.json", "figures/at_k.svg"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    assert not (ours / "units").exists()


@pytest.mark.slow
@pytest.mark.distributed
def test_killed_and_gone_on_with_by_two_processes_is_the_same_bit_for_bit(
    undisturbed: Path, moved: Path, tmp_path: Path
) -> None:
    alone = start([str(RECIPE), *words(moved, tmp_path)])
    kill_once(alone, lambda: any((tmp_path / "units").glob("*/*.parquet")))
    assert not (tmp_path / "responses").exists()
    finish(start([*DDP, str(RECIPE), *words(moved, tmp_path)]))
    same(tmp_path, undisturbed)
    launches = yaml.safe_load((tmp_path / "config.yaml").read_text())["record"]["launches"]
    assert [launch["processes"] for launch in launches] == [1, 2], "one record a launch, whatever the processes"


def test_without_arguments_pockets_pair_is_compared() -> None:
    args = evaluation_arguments.EvaluationArguments()
    assert (args.model, args.against, args.ks) == ("outputs/pocket/model", "pocket", [1, 4, 8])
    alone = evaluation_arguments.EvaluationArguments(model="pocket", samples=5)
    assert (alone.against, alone.ks) == (None, [1, 4, 5])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ks", "1", "5"], "ks has 5, which must be at least 1, and at most samples=4."),
        (["--ks", "0"], "ks has 0"),
        (["--samples", "0"], "samples=0 must be at least 1."),
        (["--seed", str(2**63)], "must be at least 0 and below 2**63."),
        (["--resamples", "0"], "resamples=0 must be at least 1."),
        (["--temperature", "0"], "temperature"),
        (["--datasets", "nothing.jsonl"], "datasets='nothing.jsonl': there is no such file."),
        (["--datasets", "no/such-data"], "datasets='no/such-data' cannot be loaded"),
        (["--datasets", "{empty}"], "empty"),
        (["--datasets", "pocket", "pocket"], "datasets names 'pocket' twice."),
        (["--datasets", "pocket", "--dataset_split", "night"], "datasets='pocket:night': split='night' is not known"),
        (["--datasets", "{long}", "--prompt_column", "question"], "prompt_column='question' is not in the data"),
        (["--dataset_split", "eval", "eval"], "dataset_split has 2 values for 1 datasets; give one, or one each."),
        (["--datasets", "{long}"], "leave it out."),
        (["--datasets", "{chat}"], "has no chat template"),
        (["--reward_func", "nothing"], "nothing"),
        (["--against", "no/such-model/here"], "against='no/such-model/here' is not a folder"),
        (["--against", "{endless}"], "has no end token"),
        (["--max_new_tokens", "5000"], "lower max_new_tokens"),
        (["--against", "{short}"], "leaves"),
        (["--use_vllm", "true"], "use_vllm=True needs vLLM"),
        (["--modell", "x"], "--modell is no argument; did you mean model?"),
    ],
)
def test_mistakes_are_named_before_a_model_is_loaded(
    arguments: list[str], said: str, moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("endless", "short"):
        shutil.copytree(moved, tmp_path / name)
    for file, keys in (
        ("endless/config.json", {"eos_token_id": None}),
        ("endless/generation_config.json", {"eos_token_id": None}),
        ("endless/tokenizer_config.json", {"eos_token": None}),
        ("short/config.json", {"max_position_embeddings": 30}),
    ):
        path = tmp_path / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
    (tmp_path / "empty").with_suffix(".jsonl").write_text("")
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "1+" * 4000, "solution": "1"}) + "\n")
    turns = [{"role": "user", "content": "1+1"}]
    (tmp_path / "chat.jsonl").write_text(json.dumps({"prompt": turns, "solution": "2"}) + "\n")
    places = {f"{{{name}}}": str(tmp_path / name) for name in ("endless", "short")}
    places |= {f"{{{name}}}": str(tmp_path / f"{name}.jsonl") for name in ("empty", "long", "chat")}
    refuse_loading(monkeypatch)
    given = [places.get(word, word) for word in arguments]
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        evaluation_arguments.prepare(words(moved, tmp_path / "out", *given))
    assert "\n" not in str(caught.value).strip()
    assert not (tmp_path / "out").exists()
