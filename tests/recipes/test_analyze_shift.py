"""The shift analysis from two models to a table: killed, shared by processes, and given wrong input."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers.launched_recipes import DDP, ROOT, finish, kill_once, start
from helpers.pocket_models import BASE, refuse_loading, save_moved
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenshift.analysis.divergence.from_logits import js_divergence
from tokenshift.analysis.sampling.trajectories import Trajectory, read_trajectories, write_trajectories
from tokenshift.analysis.storage.provenance import read_metadata
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.token_table.explored import explored_keys
from tokenshift.analysis.token_table.schema import TABLE_SCHEMA
from tokenshift.analysis.token_table.scored_run import is_scored
from tokenshift.recipes import analyze_shift
from tokenshift.recipes.pocket.problems import pocket_dataset

RECIPE = ROOT / "recipes" / "analyze_shift.py"
QUICK = ["--size", "10", "--batch_size", "4", "--batch_tokens", "150", "--max_new_tokens", "40", "--samples", "2"]
QUICK += ["--report_responses", "3", "--resamples", "20", "--verify_workers", "1"]
KEYS = [("problem_id", "ascending"), ("sample_id", "ascending"), ("position", "ascending")]


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_moved(tmp_path_factory.mktemp("moved"), 0.03)


def command(moved: Path, out: Path, *arguments: str) -> list[str]:
    return [str(RECIPE), "--rl_model", str(moved), "--output_dir", str(out), *QUICK, *arguments]


@pytest.fixture(scope="module")
def undisturbed(moved: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("undisturbed")
    return out, finish(start(command(moved, out)))


@pytest.mark.slow
def test_leaves_what_it_promises(undisturbed: tuple[Path, str], moved: Path) -> None:
    out, output = undisturbed
    (part,) = (out / "table").glob("*.parquet")
    table = pq.read_table(part)
    assert table.schema.remove_metadata() == TABLE_SCHEMA
    trajectories = read_trajectories(out / "trajectories" / "rl.parquet")
    assert [(each.problem_id, each.sample_id) for each in trajectories] == [(n, k) for n in range(10) for k in (0, 1)]
    assert table.num_rows == sum(len(each.completion_ids) for each in trajectories)
    assert {each.correct for each in trajectories} <= {True, False}
    metadata = read_metadata(part)
    assert (metadata["base_model"], metadata["rl_model"]) == ("pocket", str(moved))
    assert (metadata["temperature"], metadata["top_p"], metadata["max_new_tokens"]) == (1.0, 0.7, 40)
    assert metadata["prompts"]["3"] == pocket_dataset("analysis", 10)["prompt"][3]
    summary = json.loads((out / "summary.json").read_text())["kinds"]["rl"]["all"]
    assert summary["responses"] == 20
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "near zero" in report
    assert len(list((out / "figures").glob("*.png"))) == len(list((out / "figures").glob("*.svg"))) > 5
    assert not (out / "units").exists()
    assert "report.html" in output

    # a response against full logits
    each = trajectories[5]
    rows = table.filter(pa.array((table["problem_id"].to_numpy() == 2) & (table["sample_id"].to_numpy() == 1)))
    ids = torch.tensor([each.prompt_ids + each.completion_ids])
    with torch.no_grad():
        p, q = (
            AutoModelForCausalLM.from_pretrained(path)(input_ids=ids).logits[0, len(each.prompt_ids) - 1 : -1].double()
            for path in (BASE, moved)
        )
    assert rows["js"].to_pylist() == pytest.approx(js_divergence(p, q).tolist(), abs=1e-5)
    assert rows["token_id"].to_pylist() == each.completion_ids


@pytest.mark.slow
def test_again_changes_nothing(undisturbed: tuple[Path, str], moved: Path) -> None:
    out = undisturbed[0]
    kept = {path: path.stat().st_mtime_ns for path in [*out.glob("table/*"), *out.glob("trajectories/*")]}
    summary = (out / "summary.json").read_bytes()
    finish(start(command(moved, out)))
    assert kept == {path: path.stat().st_mtime_ns for path in [*out.glob("table/*"), *out.glob("trajectories/*")]}
    assert (out / "summary.json").read_bytes() == summary


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["rl", "table"])
def test_killed_and_started_again_is_the_same_bit_for_bit(
    undisturbed: tuple[Path, str], moved: Path, tmp_path: Path, stage: str
) -> None:
    run = start(command(moved, tmp_path))
    kill_once(run, lambda: any((tmp_path / "units" / stage).glob("*[0-9].*")))
    finish(start(command(moved, tmp_path)))
    ours, theirs = (next(out.glob("table/*.parquet")) for out in (tmp_path, undisturbed[0]))
    assert pq.read_table(ours).equals(pq.read_table(theirs))
    for name in ("summary.json", "explorer.npz"):
        assert (tmp_path / name).read_bytes() == (undisturbed[0] / name).read_bytes()


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_write_the_same_rows(undisturbed: tuple[Path, str], moved: Path, tmp_path: Path) -> None:
    finish(start([*DDP, *command(moved, tmp_path)]))
    assert len(list(tmp_path.glob("table/*.parquet"))) == 2
    ours, theirs = (pq.read_table(out / "table").sort_by(KEYS) for out in (tmp_path, undisturbed[0]))
    assert ours.equals(theirs)
    assert (tmp_path / "summary.json").read_text() != ""
    found, expected = (
        json.loads((out / "summary.json").read_text())["kinds"]["rl"]["all"]["means"]["sparsity"]
        for out in (tmp_path, undisturbed[0])
    )
    assert found == expected


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_with_one_model_at_a_time_write_the_same_rows(
    undisturbed: tuple[Path, str], moved: Path, tmp_path: Path
) -> None:
    output = finish(start([*DDP, *command(moved, tmp_path, "--one_model_at_a_time", "true")]))
    assert output.count("One model at a time: the base's hidden states of") == 1
    assert len(list(tmp_path.glob("table/*.parquet"))) == 2
    ours, theirs = (pq.read_table(out / "table").sort_by(KEYS) for out in (tmp_path, undisturbed[0]))
    assert ours.equals(theirs)
    assert explored_keys(RunFolder(tmp_path)) == explored_keys(RunFolder(undisturbed[0]))
    assert not (tmp_path / "units").exists()


def test_responses_from_files(moved: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    one, two = "Q: 1+1=?\nA: ", "Q: 2+2=?\nA: "
    texts = [(one, "Easy, \\boxed{2}.", "2"), (one, "\\boxed{3}", "2"), (two, "4", None)]
    lines = [json.dumps({"prompt": p, "completion": c, "solution": s}) for p, c, s in texts]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    own = [Trajectory(4, 2, [5, 6], [7, 8, 9], True)]
    write_trajectories(tmp_path / "ids.parquet", own)
    words = ["--rl_model", str(moved), "--report_responses", "2", "--resamples", "5", "--dtype", "float32"]
    read = {"texts.jsonl": [(0, 0, True), (0, 1, False), (1, 0, None)], "ids.parquet": [(4, 2, True)]}
    for name, expected in read.items():
        out = tmp_path / name.split(".")[0]
        job = analyze_shift.prepare([*words, "--trajectories", str(tmp_path / name), "--output_dir", str(out)])
        analyze_shift.run(job)
        rows = pq.read_table(out / "table").to_pylist()
        first = sorted((r["problem_id"], r["sample_id"], r["correct"]) for r in rows if r["position"] == 0)
        assert first == expected
    assert "".join(r["token"] for r in rows) == "".join(tokenizer.decode([token]) for token in (7, 8, 9))


def test_an_adapter_is_loaded_as_one(tmp_path: Path) -> None:
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE), LoraConfig(r=2, target_modules=["q_proj"]))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    model.peft_config["default"].base_model_name_or_path = str(BASE)
    model.save_pretrained(tmp_path / "adapter")
    words = ["--rl_model", str(tmp_path / "adapter"), "--output_dir", str(tmp_path / "out"), *QUICK]
    job = analyze_shift.prepare(words)
    assert job.rl.base == str(BASE)
    loaded = job.load(job.rl)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.allclose(loaded(input_ids=ids).logits, model.eval()(input_ids=ids).logits, atol=1e-5)
        assert not torch.allclose(loaded(input_ids=ids).logits, job.load(job.base)(input_ids=ids).logits, atol=1e-2)


def _other_tokenizer(folder: Path, moved: Path) -> Path:
    other = save_moved(folder / "other", 0.0)
    content = json.loads((other / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    names = sorted(vocabulary, key=vocabulary.get)
    vocabulary[names[-1]], vocabulary[names[-2]] = vocabulary[names[-2]], vocabulary[names[-1]]
    Tokenizer.from_str(json.dumps(content)).save(str(other / "tokenizer.json"))
    return other


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rl_model", "./nowhere"], "rl_model='./nowhere' is not a folder"),
        (["--base_model", "{empty}"], "is not a folder with a config.json or an adapter_config.json"),
        (["--rl_model", "org/not-there"], "rl_model='org/not-there' cannot be loaded"),
        (["--rl_model", "{other}"], "The two tokenizers differ first at id"),
        (["--dataset_name", "{empty_file}"], "it is empty"),
        (["--dataset_name", "pocket", "--size", "0"], "size=0 must be at least 1"),
        (["--trajectories", "{truncated}"], "cannot be read"),
        (["--trajectories", "gone.parquet"], "is no file; give rl, base, both"),
        (["--control", "{empty}"], "holds no summary.json"),
        (["--max_new_tokens", "5000"], "lower max_new_tokens"),
        (["--top_p", "0"], "top_p=0.0 must lie in (0, 1]"),
        (["--measure", "kl"], "measure='kl' is not known; choose js_top_p or js"),
        (["--temperature", "-1"], "temperature=-1.0 must be a finite number"),
        (["--dtype", "int8"], "dtype='int8' is not known"),
        (["--use_vllm", "true"], "needs vLLM"),
        (["--reward_func", "acuracy"], "acuracy"),
        (["--sampels", "3"], "did you mean samples?"),
    ],
)
def test_mistakes_are_named_before_a_model_is_loaded(
    arguments: list[str], words: str, moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").touch()
    write_trajectories(tmp_path / "truncated.parquet", [Trajectory(0, 0, [5], [5] * 5000)])
    whole = (tmp_path / "truncated.parquet").read_bytes()
    (tmp_path / "truncated.parquet").write_bytes(whole[:-20])
    places: dict[str, Any] = {
        "{empty}": tmp_path / "empty",
        "{empty_file}": tmp_path / "empty.jsonl",
        "{truncated}": tmp_path / "truncated.parquet",
        "{other}": _other_tokenizer(tmp_path, moved) if "{other}" in arguments else "",
    }
    refuse_loading(monkeypatch)
    given = ["--rl_model", str(moved)] if "--rl_model" not in arguments else []
    given += [str(places.get(word, word)) for word in arguments]
    with pytest.raises(ValueError, match=re.escape(words)):
        analyze_shift.prepare([*given, "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def _wrong_rows() -> list[tuple[list[Any], str]]:
    good = {"prompt": "Q: 1+1=?\nA: ", "completion": "2"}
    ids = {"prompt_ids": [5], "completion_ids": [6]}
    return [
        ([good, {"prompt": "Q"}], "row 1 has neither text nor messages in completion"),
        ([[1]], "row 0 has no columns"),
        ([ids, {**ids, "completion_ids": None}], "row 1 has no list of token ids in completion_ids"),
        ([{**ids, "completion_ids": ["a"]}], "row 0 has no list of token ids"),
        ([{**ids, "completion_ids": [5000]}], "row 0 has token id 5000"),
        ([{**ids, "completion_ids": [6] * 300}], "row 0 has 301 tokens, but the model reads 256"),
        ([{**ids, "problem_id": True}], "problem_id=True"),
        ([{**ids, "problem_id": 2**70}], "problem_id="),
        ([{**ids, "sample_id": "a"}], "sample_id='a'"),
        ([{**ids, "correct": "yes"}], "correct='yes'"),
        ([{**ids, "correct": 0.5}], "correct=0.5"),
        ([{**good, "completion": ""}], "no completion that is not empty"),
        ([{"text": "x"}], "needs the columns prompt_ids and completion_ids, or prompt and completion"),
        ([{**ids, "problem_id": 1, "sample_id": 0}] * 2, "problem_id=1, sample_id=0 twice"),
    ]


@pytest.mark.parametrize(("rows", "words"), _wrong_rows())
def test_wrong_trajectories(rows: list[Any], words: str, moved: Path, tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(ValueError, match=re.escape(words)):
        analyze_shift.prepare(["--rl_model", str(moved), "--trajectories", str(file), "--output_dir", str(tmp_path)])


def test_lines_of_text_may_hold_line_separators(moved: Path, tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    row = {"prompt": "Q: 1+1=?\nA: ", "completion": "a\u2028b", "solution": 2, "problem_id": "one"}
    file.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    out = tmp_path / "out"
    job = analyze_shift.prepare(["--rl_model", str(moved), "--trajectories", str(file), "--output_dir", str(out)])
    assert job.given is not None
    assert [(each.problem_id, each.correct) for each in job.given[0]] == [(0, False)]
    assert "dataset" not in job.metadata()
    assert "seed" not in job.metadata()


def test_what_names_stand_for_is_part_of_the_settings(moved: Path, tmp_path: Path) -> None:
    model = save_moved(tmp_path / "model", 0.01)
    words = ["--rl_model", str(model), "--output_dir", str(tmp_path / "out"), *QUICK]
    analyze_shift.prepare(words)
    save_moved(model, 0.02)
    with pytest.raises(ValueError, match="holds an analysis with other contents of rl_model"):
        analyze_shift.prepare(words)


def test_a_tokenizer_longer_than_the_heads(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_moved(tmp_path / name, 0.0)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / name)
        tokenizer.add_tokens(["<new>"])
        tokenizer.save_pretrained(tmp_path / name)
    with pytest.raises(ValueError, match="The tokenizers have ids up to 61, but the shorter LM head has 61 rows"):
        analyze_shift.prepare(["--base_model", str(tmp_path / "a"), "--rl_model", str(tmp_path / "b")])


def test_without_solutions_responses_stay_unjudged(moved: Path, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "Q: 1+1=?\nA: "}))
    words = ["--rl_model", str(moved), "--dataset_name", str(tmp_path / "p.jsonl"), "--solution_column", "none"]
    job = analyze_shift.prepare([*words, "--output_dir", str(tmp_path / "out")])
    assert job.judge([0], ["\\boxed{2}"]) == [None]


def test_folders_that_cannot_be_used(moved: Path, tmp_path: Path) -> None:
    words = ["--rl_model", str(moved), "--output_dir"]
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        with pytest.raises(ValueError, match=r"is a file|cannot be written"):
            analyze_shift.prepare([*words, str(tmp_path / place)])
    (tmp_path / "theirs" / "models").mkdir(parents=True)
    for overwrite in ("true", "false"):
        with pytest.raises(ValueError, match="has a models that no analysis made"):
            analyze_shift.prepare([*words, str(tmp_path / "theirs"), "--overwrite", overwrite])
    assert (tmp_path / "theirs" / "models").is_dir()

    job = analyze_shift.prepare([*words, str(tmp_path / "used")])
    with pytest.raises(ValueError, match="is in use by another analysis"):
        analyze_shift.prepare([*words, str(tmp_path / "used")])
    job.close()
    (tmp_path / "used" / "table").mkdir()
    (tmp_path / "used" / "table" / "part-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"has a damaged file, table/part-00000-of-00001\.parquet; delete it"):
        analyze_shift.prepare([*words, str(tmp_path / "used")])
    (tmp_path / "used" / "settings.json").write_text("")
    with pytest.raises(ValueError, match=r"has a damaged settings\.json"):
        analyze_shift.prepare([*words, str(tmp_path / "used")])


def test_a_table_without_all_its_parts_is_not_complete(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.table.mkdir()
    (folder.table / "part-00000-of-00002.parquet").touch()
    assert not is_scored(folder)
    (folder.table / "part-00001-of-00002.parquet").touch()
    assert is_scored(folder)
    (folder.table / "part-00000-of-00001.parquet").touch()
    assert not is_scored(folder)


def test_another_analysis_is_not_mixed_in(moved: Path, tmp_path: Path) -> None:
    words = ["--rl_model", str(moved), "--output_dir", str(tmp_path)]
    analyze_shift.prepare([*words, "--seed", "1"]).close()
    with pytest.raises(ValueError, match="holds an analysis with seed=1, not 2"):
        analyze_shift.prepare([*words, "--seed", "2"])
    (tmp_path / "table").mkdir()
    (tmp_path / "mine.txt").touch()
    analyze_shift.prepare([*words, "--seed", "2", "--overwrite", "true"])
    assert not (tmp_path / "table").exists()
    assert (tmp_path / "mine.txt").exists()
