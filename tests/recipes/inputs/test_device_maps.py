"""Models that are spread over the CPU and the disk, which takes accelerate's hooks as GPUs do: the same numbers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from helpers.pocket_models import BASE, base_and_moved, refuse_loading, requests
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from tokenshift.analysis import cross_sample, score_trajectories
from tokenshift.analysis.cross_sampling.intervention import Intervention
from tokenshift.analysis.divergence.lm_head import head_of
from tokenshift.analysis.divergence.placement import input_device, is_offloaded
from tokenshift.analysis.sampling.generators import Sampling, TransformersGenerator
from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.recipes import analyze_shift
from tokenshift.recipes.inputs import find_model, sampling
from tokenshift.recipes.inputs.device_maps import read_device_map

CPU = torch.device("cpu")
BETWEEN = {f"model.layers.{layer}": "cpu" for layer in (1, 2)}
FIRST_ON_DISK = {"model.embed_tokens": "disk", "lm_head": "disk", "model.layers.0": "disk", "": "cpu"}
LAST_ON_DISK = {"model.norm": "disk", "model.layers.3": "disk", **BETWEEN, "": "cpu"}
SHORT = Sampling(max_new_tokens=5, seed=5)


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of pocket's base with noise, in several files."""
    folder = tmp_path_factory.mktemp("moved")
    _, model, tokenizer = base_and_moved()
    model.save_pretrained(folder, max_shard_size="200KB")
    tokenizer.save_pretrained(folder)
    return folder


def trajectories(tokenizer: Any) -> list[Trajectory]:
    ids = tokenizer("Q: 1+1=?\nA: Easy, \\boxed{2}. And so it goes on")["input_ids"]
    return [Trajectory(row, 0, ids[: 4 + row], ids[4 + row :][: 5 + 3 * row]) for row in range(3)]


@pytest.mark.parametrize("device_map", [FIRST_ON_DISK, LAST_ON_DISK, "auto"], ids=["first", "last", "auto"])
def test_the_same_numbers_bit_for_bit(moved: Path, device_map: Any) -> None:
    sources = find_model("base_model", "pocket"), find_model("rl_model", str(moved))
    plain = [source.load("float32", CPU) for source in sources]
    spread = [source.load("float32", device_map=device_map) for source in sources]
    tokenizer = sources[0].tokenizer
    for model, whole in zip(spread, plain, strict=True):
        assert is_offloaded(model) == (device_map != "auto")
        assert input_device(model) == CPU
        assert torch.equal(head_of(model).weight, head_of(whole).weight)
        assert not model.training
    rows = trajectories(tokenizer)
    assert score_trajectories(*spread, rows, tokenizer).equals(score_trajectories(*plain, rows, tokenizer))
    asked = requests(tokenizer, 2)
    expected, found = (TransformersGenerator(pair[1], tokenizer, SHORT)(asked) for pair in (plain, spread))
    assert found == expected
    plan = Intervention("js", 1e-4)
    crossed = [cross_sample(*pair, tokenizer, asked, plan=plan, sampling=SHORT) for pair in (plain, spread)]
    first, second = ([(each.completion_ids, each.switched, each.scores) for each in made] for made in crossed)
    assert first == second
    assert any(response.switched for response in crossed[0])


def test_hooks_without_offloading_change_nothing() -> None:
    """As a model on several accelerators has them."""
    base, rl, tokenizer = base_and_moved()
    rows = trajectories(tokenizer)
    expected = score_trajectories(base, rl, rows, tokenizer)
    for model in (base, rl):
        dispatch_model(model, {"": "cpu"}, main_device="cpu", force_hooks=True)
        assert hasattr(model.lm_head, "_hf_hook")
    assert score_trajectories(base, rl, rows, tokenizer).equals(expected)


def test_pickled_weights_need_a_folder(tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(BASE)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    model.config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    source = find_model("model", str(tmp_path))
    with pytest.raises(ValueError, match="provide an `offload_folder`"):
        source.load("float32", device_map=LAST_ON_DISK)
    spread = source.load("float32", device_map=LAST_ON_DISK, offload_folder=tmp_path / "offloaded")
    rows = trajectories(tokenizer)
    expected = score_trajectories(model, model, rows, tokenizer)
    assert score_trajectories(spread, model, rows, tokenizer).equals(expected)


@pytest.mark.parametrize(
    ("device_map", "words"),
    [
        ("balance", "device_map='balance' is not known; choose auto, balanced, balanced_low_0, sequential, or give a"),
        ("{lm_head: gpu9}", "device_map puts 'lm_head' on 'gpu9', which this machine does not have; it has"),
        ("{'': 99}", "device_map puts 'all' on 99, which this machine does not have"),
        ("{}", "is not known"),
        (
            '{"model.layers.9": "cpu", "": "cpu"}',
            "names 'model.layers.9', which 'pocket' does not have; its parts",
        ),
        ('{"model.norm": "cpu"}', r"gives no device for model.embed_tokens.weight and \d+ more of 'pocket'"),
        (
            '{"model": "disk", "lm_head": "cpu"}',
            "leaves model.embed_tokens.weight of 'pocket' on the disk and",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(
    moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device_map: str, words: str
) -> None:
    refuse_loading(monkeypatch)
    command = ["--rl_model", str(moved), "--size", "2", "--output_dir", str(tmp_path), "--device_map", device_map]
    with pytest.raises(ValueError, match=words):
        analyze_shift.prepare(command)


def test_options_beside_it(moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_loading(monkeypatch)
    command = ["--rl_model", str(moved), "--size", "2", "--output_dir", str(tmp_path)]
    for options, words in (
        (["--engine", "vllm", "--device_map", "auto"], "device_map='auto' has no effect: vLLM places models itself"),
        (["--engine", "vllm", "--one_model_at_a_time", "true"], "has no effect: vLLM holds both models in one engine"),
        (["--offload_folder", "here"], "offload_folder='here' has no effect: it is of models that device_map spreads"),
    ):
        with pytest.raises(ValueError, match=words):
            analyze_shift.prepare([*command, *options])
    monkeypatch.setattr(sampling, "start_process_group", lambda *_, **__: SimpleNamespace(num_processes=2))
    monkeypatch.setattr(sampling, "check_launch", lambda state: None)
    monkeypatch.setattr(sampling, "meet", lambda: None)
    with pytest.raises(ValueError, match=r"device_map='auto' spreads each model .* but 2 processes run; start one"):
        analyze_shift.prepare([*command, "--device_map", "auto"])


def test_an_adapter_is_not_merged_on_the_disk(tmp_path: Path) -> None:
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE), LoraConfig(r=2, target_modules=["q_proj"]))
    model.peft_config["default"].base_model_name_or_path = str(BASE)
    model.save_pretrained(tmp_path)
    source = find_model("model", str(tmp_path))
    with pytest.raises(ValueError, match="is an adapter, and device_map leaves parts of its base in host memory"):
        source.load("float32", device_map=LAST_ON_DISK)
    whole, spread = source.load("float32", CPU), source.load("float32", device_map="auto")
    assert all(torch.equal(*pair) for pair in zip(whole.parameters(), spread.parameters(), strict=True))


def test_a_mapping_from_a_config_file_stays_one() -> None:
    assert read_device_map({"model": "cpu", "lm_head": "cpu"}) == {"model": "cpu", "lm_head": "cpu"}
    assert read_device_map('{"": "cpu"}') == {"": "cpu"}
    assert read_device_map(None) is None
