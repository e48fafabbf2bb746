"""The supervised control: what it learns from, when it stops, what it leaves, and mistakes in one line."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from helpers import launched_recipes
from helpers.launched_recipes import DDP, ROOT, refusal
from safetensors.torch import load_file
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from tokenshift.analysis.sampling.generators import Sampling, TransformersGenerator
from tokenshift.analysis.sampling.token_ids import encode_prompt
from tokenshift.analysis.storage.folder_lock import FolderLock
from tokenshift.analysis.vllm_engine import engine, installation
from tokenshift.recipes.inputs.models import SMOLLM2_PACKAGE, find_model, model_ends, resolve_model
from tokenshift.recipes.inputs.problems import MADE
from tokenshift.recipes.jobs.sft import preparation
from tokenshift.recipes.jobs.sft.heldout_problems import HeldOutProblems
from tokenshift.recipes.jobs.sft.preparation import prepare
from tokenshift.recipes.jobs.sft.solutions import load_solutions, solution_ids, tokenized_solutions
from tokenshift.recipes.sft_control import main
from tokenshift.rewards import accuracy_reward

RECIPE = ROOT / "recipes" / "sft_control.py"
TRAINING = {
    "max_steps": 4,
    "check_steps": 2,
    "per_device_train_batch_size": 4,
    "train_size": 24,
    "eval_size": 8,
    "batch_size": 8,
    "max_new_tokens": 8,
    "learning_rate": 1e-2,
    "save_strategy": "no",
    "gradient_checkpointing": "false",
    "reward_func": "helpers.tiny_training.digit_reward",  # below 1 whatever is said; no verification processes
    "seed": 3,
}


def words(model: str, out: Path, **settings: Any) -> list[str]:
    every = {"base_model": model, "output_dir": str(out), "target_accuracy": 1.0, **TRAINING, **settings}
    return [part for name, value in every.items() if value is not None for part in (f"--{name}", str(value))]


def summary(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def always_right(completions: list[str], **columns: Any) -> list[float]:
    return [1.0] * len(completions)


def right_from_the_third_check(completions: list[str], **columns: Any) -> list[float]:
    """Of two problems, one is answered at once and the other from the third call on."""
    right_from_the_third_check.calls += 1  # type: ignore[attr-defined]
    return [1.0, float(right_from_the_third_check.calls >= 3)]  # type: ignore[attr-defined]


JUDGE = "tokenshift_sft_judge"


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], str]:
    """Makes a reward loadable by a dotted path."""

    def register(function: Any) -> str:
        module = type(sys)(JUDGE)
        module.reward = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, JUDGE, module)
        return f"{JUDGE}.reward"

    return register


# What is learnt --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "wording"), [("pocket", 300, "own"), ("pocket", 300, "taught"), ("sums", 100, "own")]
)
def test_every_solution_is_correct(name: str, size: int, wording: str) -> None:
    train, held_out = load_solutions(name, train_size=size, eval_size=20, wording=wording)
    gold = MADE[name]("train", size)
    assert train.column_names == ["prompt", "completion"]
    assert train["prompt"] == gold["prompt"]
    assert accuracy_reward(completions=list(train["completion"]), solution=list(gold["solution"])) == [1.0] * size
    assert not set(held_out["prompt"]) & set(train["prompt"])


def test_solutions_depend_on_the_seed_and_not_on_how_many_there_are() -> None:
    few, many, other = (
        load_solutions("pocket", train_size=size, eval_size=3, seed=seed)[0]
        for size, seed in ((30, 0), (60, 0), (30, 1))
    )
    by_prompt = dict(zip(many["prompt"], many["completion"], strict=True))
    shared = [row for row in few if row["prompt"] in by_prompt]
    assert len(shared) > 5
    assert all(by_prompt[row["prompt"]] == row["completion"] for row in shared)
    assert few["completion"] != other["completion"]


def test_pocket_rows_are_the_ids_of_sampling_and_what_trl_makes_of_the_text(tiny_model: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ends = model_ends(find_model("base_model", tiny_model))
    assert ends == {tokenizer.eos_token_id}
    train, _ = load_solutions("pocket", train_size=6, eval_size=3)
    rows, left_out = tokenized_solutions(train, tokenizer, ends, 128)
    assert left_out == 0
    for row, text in zip(rows, train, strict=True):
        prompt = encode_prompt(tokenizer, text["prompt"])
        assert row["input_ids"][: len(prompt)] == prompt
        assert row["labels"] == [-100] * len(prompt) + row["input_ids"][len(prompt) :]
        assert row["labels"][-1] == tokenizer.eos_token_id
        assert row["input_ids"].count(tokenizer.eos_token_id) == 1
        assert tokenizer.bos_token_id not in row["input_ids"]
        assert tokenizer.decode(row["input_ids"][len(prompt) : -1]) == text["completion"]
    args = SFTConfig(str(tmp_path), use_cpu=True, bf16=False, report_to=[])
    stock = SFTTrainer(tiny_model, args, train_dataset=train).train_dataset
    assert [(row["input_ids"], row["labels"]) for row in stock] == [(r["input_ids"], r["labels"]) for r in rows]


class Words:
    """A tokenizer with a token a word and a newline, which puts a start token before all text."""

    eos_token_id: int | None = 2
    chat_template = None

    def __call__(self, text: str, add_special_tokens: bool = True, **options: Any) -> dict[str, list[int]]:
        ids = [3 if word == "\n" else 10 + len(word) for word in text.replace("\n", " \n ").split(" ") if word]
        return {"input_ids": [1] * add_special_tokens + ids}

    def decode(self, ids: list[int]) -> str:
        return "\n" if ids == [3] else "word"

    def apply_chat_template(self, turns: list[dict[str, str]], **options: Any) -> list[int]:
        ids = [1]
        for turn in turns:
            ids += [4, *self(turn["content"], False)["input_ids"]] + [5, 3] * (turn["role"] == "assistant")
        return ids + [4] * options.get("add_generation_prompt", False)


def test_end_token_is_added_where_generation_does_not_end_already() -> None:
    tokenizer: Any = Words()
    assert solution_ids(tokenizer, "a bb ", "ccc", {2}) == ([1, 11, 12], [13, 2])
    assert solution_ids(tokenizer, "a bb ", "ccc\n", {2, 3}) == ([1, 11, 12], [13, 3])
    # words merge over the boundary: the prompt stays as the model is prompted with it
    assert solution_ids(tokenizer, "a b", "ccc", {2}) == ([1, 11, 11], [13, 2])
    with pytest.raises(ValueError, match=r"goes on after '\\n', where generation by this model ends"):
        solution_ids(tokenizer, "a ", "b\nc", {2, 3})
    tokenizer.eos_token_id = None
    with pytest.raises(ValueError, match="base_model has no end token"):
        solution_ids(tokenizer, "a ", "b", set())


def test_a_turn_of_a_conversation_ends_as_the_template_ends_it() -> None:
    tokenizer: Any = Words()
    prompt = [{"role": "user", "content": "a"}]
    assert solution_ids(tokenizer, prompt, "bb", {2, 5}) == ([1, 4, 11, 4], [12, 5])
    turn = [{"role": "assistant", "content": "bb"}]
    assert solution_ids(tokenizer, prompt, turn, {2, 5}) == ([1, 4, 11, 4], [12, 5])


@pytest.mark.slow
@pytest.mark.skipif(find_spec(SMOLLM2_PACKAGE) is None, reason="needs the extra smollm2")
def test_sums_end_with_the_newline_at_which_smollm2_stops() -> None:
    source = find_model("base_model", "smollm2")
    ends = model_ends(source)
    train, _ = load_solutions("sums", train_size=20, eval_size=5)
    rows, _ = tokenized_solutions(train, source.tokenizer, ends, 1024)
    for row, text in zip(rows, train, strict=True):
        prompt = encode_prompt(source.tokenizer, text["prompt"])
        assert row["input_ids"][: len(prompt)] == prompt
        solution = row["labels"][len(prompt) :]
        assert source.tokenizer.decode(solution) == text["completion"]
        assert [token in ends for token in solution] == [False] * (len(solution) - 1) + [True]


def test_rows_that_are_too_long_are_left_out(tiny_model: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    train = Dataset.from_dict({"prompt": ["Q: "] * 3, "completion": ["1", "1" * 40, "1"]})
    rows, left_out = tokenized_solutions(train, tokenizer, {2}, 20)
    assert (len(rows), left_out) == (2, 1)
    with pytest.raises(ValueError, match="Every solution is longer than 3 tokens"):
        tokenized_solutions(train, tokenizer, {2}, 3)


def test_own_data_whose_worked_solutions_are_called_solution(tmp_path: Path) -> None:
    rows = [{"problem": f"Q: {i}?", "solution": f"it is {i}.", "answer": str(i)} for i in range(12)]
    file = tmp_path / "solved.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"prompt_column": "problem", "completion_column": "solution", "solution_column": "answer"}
    train, held_out = load_solutions(str(file), eval_size=4, **columns)
    numbers = [prompt[3:-1] for prompt in train["prompt"]]
    assert train["completion"] == [f"it is {number}." for number in numbers]
    assert held_out["solution"] == [prompt[3:-1] for prompt in held_out["prompt"]]
    assert {*train["prompt"], *held_out["prompt"]} == {row["problem"] for row in rows}
    assert (len(train), len(held_out)) == (8, 4)


# Mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_accuracy": 0}, "target_accuracy=0.0 must be above 0, and at most 1"),
        ({"target_accuracy": 1.5}, "target_accuracy=1.5 must be above 0, and at most 1"),
        ({"check_steps": 0}, "check_steps=0 must be at least 1"),
        ({"top_p": 0}, "top_p"),
        ({"eval_strategy": "epoch"}, "eval_strategy is not used here"),
        ({"model_name_or_path": "x"}, "name the model by --base_model"),
        ({"check_stepz": 3}, "did you mean check_steps?"),
        ({"target_accuracy": None, "rl_model": "./nowhere/model"}, "or give --target_accuracy instead"),
        ({"base_model": "./nowhere"}, "base_model='./nowhere' is not a folder"),
        ({"dataset_name": "gone.jsonl"}, "there is no such file"),
        (
            {"dataset_name": "{unsolved}", "eval_size": 2},
            "completion_column='completion' is not in the data; it has 'prompt', 'solution'",
        ),
        ({"dataset_name": "{empty}"}, "dataset_name='{empty}' cannot be loaded: it is empty"),
        ({"dataset_name": "{gaps}", "eval_size": 2}, "completion_column='completion' has no solution to the prompt"),
        ({"wording": "other"}, "wording='other' is not known; choose own or taught"),
        (
            {"wording": "taught", "dataset_name": "sums"},
            "wording='taught' is for pocket's solutions; dataset_name='sums' has only its own",
        ),
        ({"completion_column": "worked"}, "it takes no completion_column"),
        ({"max_length": 5}, "Every solution is longer than 5 tokens"),
        ({"max_new_tokens": 500}, "lower max_new_tokens"),
        ({"resume_from_checkpoint": "nowhere"}, "is not a checkpoint folder"),
        ({"engine": "tree"}, "engine='tree' is not known; choose transformers or vllm"),
        ({"engine": "vllm"}, "engine='vllm' needs vLLM"),
        ({"engine": "vllm", "use_peft": "true"}, "engine='vllm' cannot be with use_peft=True"),
        ({"vllm_runner": "v1"}, "it is of engine vllm, and engine is transformers; leave it out"),
    ],
)
def test_mistakes_end_in_one_line(
    settings: dict[str, Any],
    message: str,
    tiny_model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [{"prompt": f"Q: {i}", "solution": str(i)} for i in range(8)]
    files = {
        "unsolved": rows,
        "empty": [],
        "gaps": [row | {"completion": "" if row["solution"] == "3" else "1"} for row in rows + rows[3:4] * 5],
    }
    places = {name: str(tmp_path / f"{name}.jsonl") for name in files}
    for name, content in files.items():
        Path(places[name]).write_text("".join(json.dumps(row) + "\n" for row in content))

    def filled(text: Any) -> Any:
        for name, place in places.items():
            text = text.replace(f"{{{name}}}", place) if isinstance(text, str) else text
        return text

    def no_loading(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("tokenshift.recipes.sft_control.run", no_loading)
    arguments = words(tiny_model, tmp_path / "out", **{name: filled(value) for name, value in settings.items()})
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert filled(message) in printed
    assert len(printed.strip().splitlines()) == 1


@pytest.fixture
def as_if_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM seems to be installed, and to serve every model."""
    monkeypatch.setattr(installation, "installed_version", lambda: "0.32.0")
    monkeypatch.setattr(engine, "check_served", lambda model, base: None)


VLLM = {"engine": "vllm", "vllm_runner": "v1"}


def test_an_engine_on_another_machine_is_refused(
    tiny_model: str,
    tmp_path: Path,
    as_if_installed: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preparation, "PartialState", lambda: SimpleNamespace(num_processes=4))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    parsed = preparation.parse_sft_arguments(words(tiny_model, tmp_path, **VLLM))
    with pytest.raises(ValueError, match="on one machine, and 2 of the 4 processes are on others: train on one"):
        preparation._check_engine_beside_training(*parsed)


@pytest.mark.parametrize("version", ["1", None])
def test_weights_that_the_first_fsdp_holds_are_refused(
    tiny_model: str,
    tmp_path: Path,
    as_if_installed: None,
    version: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed = preparation.parse_sft_arguments(words(tiny_model, tmp_path, **VLLM))
    preparation._check_engine_beside_training(*parsed)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    preparation._check_engine_beside_training(*parsed)
    monkeypatch.delenv("FSDP_VERSION") if version is None else monkeypatch.setenv("FSDP_VERSION", version)
    with pytest.raises(ValueError, match="FSDP2 gathers, and fsdp_version is 1: set fsdp_version: 2"):
        preparation._check_engine_beside_training(*parsed)


def test_what_vllm_cannot_hold_is_refused(tiny_model: str, tmp_path: Path, as_if_installed: None) -> None:
    with pytest.raises(ValueError, match="vllm_max_model_length=20, but the longest prompt and its response may have"):
        prepare(words(tiny_model, tmp_path, **VLLM, vllm_max_model_length=20))


class Engine:
    """Stands for a vLLM engine: its responses are empty, and it keeps the weights that it was given."""

    made: list["Engine"] = []

    def __init__(self, model: Any, base: Any, ends: set[int], options: Any) -> None:
        self.made.append(self)
        self.options, self.ends, self.closed = options, ends, False
        self.weights = [self.read(Path(model.path))]

    def read(self, folder: Path) -> dict[str, torch.Tensor]:
        return load_file(folder / "model.safetensors")

    def take_weights(self, folder: Path) -> None:
        self.weights.append(self.read(folder))

    def __call__(self, requests: list[Any]) -> list[Any]:
        return [SimpleNamespace(completion_ids=[2]) for _ in requests]

    def close(self) -> None:
        self.closed = True


def test_the_engine_has_the_weights_of_each_check(
    tiny_model: str,
    tmp_path: Path,
    judge: Callable[[Any], str],
    as_if_installed: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "VLLMEngine", Engine)
    monkeypatch.setattr(Engine, "made", [])
    answered = iter([[1.0] * 8])  # the target alone is right

    def right_at_first(completions: list[str], **columns: Any) -> list[float]:
        return next(answered, [0.0] * len(completions))

    given = {**VLLM, "target_accuracy": None, "rl_model": tiny_model, "reward_func": judge(right_at_first)}
    assert main(words(tiny_model, tmp_path, **given)) == 0
    of_target, of_policy = Engine.made
    assert (of_target.closed, of_policy.closed) == (True, True)
    assert of_policy.ends == {2}
    assert (of_policy.options.dtype, of_policy.options.memory_share, of_policy.options.runner) == (
        "float32",
        0.3,
        "v1",
    )
    before = load_file(Path(tiny_model) / "model.safetensors")
    after = load_file(tmp_path / "model" / "model.safetensors")
    assert len(of_policy.weights) == 3  # before, at update 2, and at the end
    for found, expected in (
        (of_target.weights[0], before),
        (of_policy.weights[0], before),
        (of_policy.weights[2], after),
    ):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert any(not torch.equal(of_policy.weights[1][name], of_policy.weights[2][name]) for name in after)
    assert not (tmp_path / ".incomplete").exists()
    found = summary(tmp_path)
    assert (found["engine"], found["vllm"], found["vllm_runner"]) == ("vllm", "0.32.0", "v1")


def test_no_argument_is_the_embedded_example(tmp_path: Path) -> None:
    job = prepare(["--target_accuracy", "0.9", "--output_dir", str(tmp_path / "new")])
    assert job.base.path == resolve_model("pocket")
    assert (len(job.train), len(job.held_out.problems), job.args.per_device_train_batch_size) == (2048, 256, 32)
    assert job.args.report_to == []
    assert job.script_args.wording == "own"


# Stopping --------------------------------------------------------------------------------------------------------


def test_stops_at_the_first_check_that_reaches_the_target(
    tiny_model: str, tmp_path: Path, judge: Callable[[Any], str], capsys: pytest.CaptureFixture[str]
) -> None:
    right_from_the_third_check.calls = 0  # type: ignore[attr-defined]
    settings = {"reward_func": judge(right_from_the_third_check), "eval_size": 2, "target_accuracy": 0.9}
    assert main(words(tiny_model, tmp_path, **settings, max_steps=50)) == 0
    found = summary(tmp_path)
    assert (found["outcome"], found["target_reached"], found["updates"]) == ("target reached", True, 4)
    assert [(check["update"], check["mean"]) for check in found["checks"]] == [(0, 0.5), (2, 0.5), (4, 1.0)]
    assert (found["base"]["mean"], found["accuracy"]["mean"], found["accuracy"]["n"]) == (0.5, 1.0, 2)
    assert found["target"] == {"accuracy": 0.9, "source": "target_accuracy", "score": None}
    assert "target reached: accuracy 1.000" in capsys.readouterr().out
    saved = load_file(tmp_path / "model" / "model.safetensors")
    before = load_file(Path(tiny_model) / "model.safetensors")
    assert any(not torch.equal(saved[name], before[name]) for name in before)
    assert AutoTokenizer.from_pretrained(tmp_path / "model").eos_token_id == 2
    assert not (tmp_path / ".incomplete").exists()


def test_the_wording_is_learnt_and_recorded(tiny_model: str, tmp_path: Path) -> None:
    for wording in ("own", "taught"):
        assert main(words(tiny_model, tmp_path / wording, wording=wording, max_steps=2)) == 0
        assert summary(tmp_path / wording)["wording"] == wording
    own, taught = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("own", "taught"))
    assert any(not torch.equal(own[name], taught[name]) for name in own)


def test_updates_that_run_out_are_said_so(tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tiny_model, tmp_path, max_steps=3)) == 0
    found = summary(tmp_path)
    assert (found["target_reached"], found["updates"]) == (False, 3)
    assert [check["update"] for check in found["checks"]] == [0, 2, 3]
    assert "the updates ran out before the target was reached: accuracy 0.000" in capsys.readouterr().out
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_a_base_that_is_good_enough_is_left_as_it_is(
    tiny_model: str, tmp_path: Path, judge: Callable[[Any], str]
) -> None:
    assert main(words(tiny_model, tmp_path, reward_func=judge(always_right))) == 0
    assert (summary(tmp_path)["updates"], summary(tmp_path)["target_reached"]) == (0, True)
    saved, before = load_file(tmp_path / "model" / "model.safetensors"), load_file(f"{tiny_model}/model.safetensors")
    assert all(torch.equal(saved[name], before[name]) for name in before)


def test_the_rl_models_accuracy_is_the_target(tiny_model: str, tmp_path: Path, judge: Callable[[Any], str]) -> None:
    settings = {"target_accuracy": None, "rl_model": tiny_model, "reward_func": judge(always_right)}
    assert main(words(tiny_model, tmp_path, **settings)) == 0
    target = summary(tmp_path)["target"]
    assert (target["accuracy"], target["source"], target["score"]["n"]) == (1.0, f"rl_model {tiny_model}", 8)


def test_measuring_leaves_training_as_it_is(tiny_model: str, tmp_path: Path) -> None:
    weights = []
    for every in (1, 100):
        assert main(words(tiny_model, tmp_path / str(every), check_steps=every)) == 0
        weights.append(load_file(tmp_path / str(every) / "model" / "model.safetensors"))
    assert len(summary(tmp_path / "1")["checks"]) == 5
    assert len(summary(tmp_path / "100")["checks"]) == 2
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_accuracy_does_not_depend_on_the_batch(tiny_model: str) -> None:
    source = find_model("base_model", tiny_model)
    model = source.load("float32", torch.device("cpu"))
    _, held_out = load_solutions("pocket", train_size=3, eval_size=9)
    seen: list[list[str]] = []

    def record(completions: list[str], **columns: Any) -> list[float]:
        seen[-1] += completions
        return [0.0] * len(completions)

    sampling = Sampling(1.0, 1.0, 8, 0)
    generate = TransformersGenerator(model, source.tokenizer, sampling)
    for size in (9, 4):
        seen.append([])
        score = HeldOutProblems(held_out, record, sampling, size).accuracy(generate, source.tokenizer, "test")
        assert (score.mean, score.n) == (0.0, 9)
    assert seen[0] == seen[1]


# Going on, or not --------------------------------------------------------------------------------------------------


def test_resumed_ends_as_undisturbed(tiny_model: str, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(words(tiny_model, whole, max_steps=6)) == 0
    saving = {"save_strategy": "steps", "save_steps": 3}
    assert main(words(tiny_model, cut, max_steps=6, **saving)) == 0
    (cut / "checkpoint-6").rename(tmp_path / "gone")
    (cut / "summary.json").unlink()
    assert main([*words(tiny_model, cut, max_steps=6), "--resume_from_checkpoint", "true"]) == 0
    assert summary(cut)["checks"] == summary(whole)["checks"]
    ours, theirs = load_file(cut / "model" / "model.safetensors"), load_file(whole / "model" / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_an_earlier_run_is_kept_unless_overwritten(
    tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = words(tiny_model, tmp_path, max_steps=2)
    assert main(arguments) == 0
    (tmp_path / "mine.txt").write_text("kept")
    first = summary(tmp_path)
    assert main(arguments) == 2
    assert "holds model of an earlier run; delete it by --overwrite true" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "true", "--max_steps", "3"]) == 0
    assert (first["updates"], summary(tmp_path)["updates"]) == (2, 3)
    assert (tmp_path / "mine.txt").read_text() == "kept"


def finish(run: subprocess.Popen[str]) -> str:
    return launched_recipes.finish(run, seconds=400)


def start(out: Path, *arguments: str) -> subprocess.Popen[str]:
    return launched_recipes.start([*arguments, "--output_dir", str(out)])


QUICK = ["--target_accuracy", "1", "--eval_size", "24", "--train_size", "128", "--check_steps", "2"]


@pytest.mark.slow
def test_pocket_learns_and_goes_on_after_ctrl_c(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = [str(RECIPE), *QUICK, "--max_steps", "8"]
    finish(start(whole, *arguments))
    expected = summary(whole)
    assert expected["accuracy"]["mean"] > expected["base"]["mean"]
    run = start(cut, *arguments)
    assert run.stdout is not None
    for line in run.stdout:
        if line.startswith("update 2/8"):
            break
    run.send_signal(signal.SIGINT)
    output = finish(run)
    assert "stopped by a signal" in output
    stopped = summary(cut)
    assert 2 < stopped["updates"] < 8
    assert not (cut / "model").exists()
    finish(start(cut, *arguments, "--resume_from_checkpoint", "true"))
    assert summary(cut)["checks"] == expected["checks"]


@pytest.mark.slow
def test_a_second_run_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    arguments = [str(RECIPE), *QUICK, "--eval_size", "8", "--max_steps", "2"]
    first = start(tmp_path, *arguments)
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("update 0/2"):
            break
    first.send_signal(signal.SIGSTOP)  # it holds its folder, and gets no further
    for wanted in (["--overwrite", "true"], []):
        assert refusal(start(tmp_path, *arguments, *wanted)) == (
            f"sft_control.py: output_dir='{tmp_path}' is in use by another SFT control, process {first.pid} on the "
            f"host {socket.gethostname()}; wait until it ends, or choose another --output_dir."
        )
    first.send_signal(signal.SIGKILL)
    first.communicate()
    finish(start(tmp_path, *arguments, "--overwrite", "true"))
    assert summary(tmp_path)["updates"] == 2


@pytest.mark.slow
@pytest.mark.distributed
def test_a_refusal_is_one_line_of_several_processes(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path, "SFT control", "x")
    run = start(tmp_path, *DDP, str(RECIPE), *QUICK)
    output, _ = run.communicate(timeout=300)
    lock.release()
    assert run.returncode != 0
    assert output.count("is in use by another SFT control") == 1
    assert "sft_control.py: output_dir=" in output


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_stop_together_with_the_same_accuracy_before_training(tmp_path: Path) -> None:
    quick = [*QUICK, "--eval_size", "25", "--max_steps", "4"]
    output = finish(start(tmp_path / "two", *DDP, str(RECIPE), *quick))
    finish(start(tmp_path / "one", str(RECIPE), *quick))
    two, one = summary(tmp_path / "two"), summary(tmp_path / "one")
    assert (two["batch"], one["batch"]) == (64, 32)
    assert two["base"] == one["base"]
    assert two["base"]["n"] == 25
    assert output.count("update 4/4") == 1
    assert (tmp_path / "two" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_an_adapter_is_trained_and_saved(tiny_model: str, tmp_path: Path) -> None:
    lora = {"use_peft": "true", "lora_r": 4, "lora_target_modules": "all-linear"}
    assert main(words(tiny_model, tmp_path, **lora)) == 0
    source = find_model("rl_model", str(tmp_path / "model"))
    assert source.base == tiny_model
    merged = source.load("float32", torch.device("cpu"))
    assert merged(torch.tensor([[5, 6]])).logits.isfinite().all()
