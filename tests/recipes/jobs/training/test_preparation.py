"""Refusals before a model is loaded: contexts that are too short, and settings that rollouts would follow."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from helpers.pocket_models import BASE, refuse_loading
from transformers import AutoTokenizer, GenerationConfig, TrainingArguments

from tokenshift.recipes.command_line.config_files import config_file, read_config
from tokenshift.recipes.inputs.changed_models import save_changed_model
from tokenshift.recipes.jobs.training.preparation import prepare
from tokenshift.recipes.jobs.training.terminal import rollout_engine


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_loading(monkeypatch)


def words(out: Path, *more: str) -> list[str]:
    return ["--config", "pocket", "--output_dir", str(out), "--train_size", "64", "--eval_size", "8", *more]


def test_a_context_that_is_too_short_is_refused_with_both_numbers(tmp_path: Path) -> None:
    message = (
        r"^model_name_or_path='pocket' reads 256 tokens; the longest prompt has (\d+), and with "
        r"max_completion_length=250 a response could end at (\d+): lower max_completion_length to (\d+)"
    )
    with pytest.raises(ValueError, match=message) as refusal:
        prepare(words(tmp_path / "out", "--max_completion_length", "250"))
    prompt, end, fitting = (int(number) for number in re.findall(message, str(refusal.value))[0])
    assert (end, fitting) == (prompt + 250, 256 - prompt)
    assert not (tmp_path / "out").exists()
    prepare(words(tmp_path / "fits", "--max_completion_length", str(fitting))).close()


@pytest.mark.parametrize(
    "lengthened",
    [
        '{"max_position_embeddings": 512}',
        '{"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 256, '
        '"rope_theta": 10000.0}}',
    ],
)
def test_a_model_can_be_lengthened(lengthened: str, tmp_path: Path) -> None:
    given = ["--max_completion_length", "250", "--model_init_kwargs", lengthened]
    prepare(words(tmp_path / "out", *given)).close()


def test_settings_of_the_folder_that_rollouts_would_follow_are_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(BASE, model)
    config = GenerationConfig.from_pretrained(BASE)
    config.update(do_sample=True, temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05)
    config.save_pretrained(model)
    prepare(words(tmp_path / "out", "--model_name_or_path", str(model))).close()  # TRL gives these itself
    settings = json.loads((model / "generation_config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps(settings | {"no_repeat_ngram_size": 3}))
    with pytest.raises(ValueError, match=r"sets no_repeat_ngram_size=3: rollouts would be sampled with that"):
        prepare(words(tmp_path / "other", "--model_name_or_path", str(model)))
    given = ["--generation_kwargs", '{"no_repeat_ngram_size": 0}']
    prepare(words(tmp_path / "third", "--model_name_or_path", str(model), *given)).close()


def test_a_config_that_vllm_would_not_have_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenshift.recipes.inputs.installed.find_spec", lambda name: name)
    given = ["--use_vllm", "true", "--model_init_kwargs", '{"max_position_embeddings": 512}']
    with pytest.raises(ValueError, match=r"model_init_kwargs sets max_position_embeddings, which vLLM would not have"):
        prepare(words(tmp_path / "out", *given))
    folder = tmp_path / "longer"
    save_changed_model("pocket", {"max_position_embeddings": 512}, folder)
    given = ["--use_vllm", "true", "--model_name_or_path", str(folder), "--max_completion_length", "250"]
    prepare(words(tmp_path / "out", *given)).close()


def test_a_rotary_base_that_would_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sets rope_theta=40000\.0, which is read from rope_parameters"):
        prepare(words(tmp_path / "out", "--model_init_kwargs", '{"rope_theta": 40000.0}'))


@pytest.mark.parametrize(
    ("rewards", "metric", "known"),
    [
        (["accuracy_reward", "format_reward"], "format_reward", "format_reward"),
        (["signed_accuracy_reward"], "signed_accuracy_reward", "signed_accuracy_reward"),
        (["helpers.tiny_training.even_digits"], "helpers.tiny_training.even_digits", "even_digits"),
    ],
)
def test_the_filtering_reward_goes_by_the_name_that_the_trainer_knows(
    tmp_path: Path, rewards: list[str], metric: str, known: str
) -> None:
    given = ["--reward_funcs", *rewards, "--dynamic_sampling", "true", "--dynamic_sampling_metric", metric]
    job = prepare(words(tmp_path / "out", *given))
    job.close()
    assert job.args.dynamic_sampling_metric == known


def test_what_samples_the_rollouts_is_said() -> None:
    args = SimpleNamespace(use_vllm=False)
    assert rollout_engine(args) == "transformers"
    args = SimpleNamespace(use_vllm=True, vllm_mode="colocate", vllm_importance_sampling_correction=False)
    assert rollout_engine(args) == "vLLM (colocate), no importance-sampling correction"
    args.vllm_importance_sampling_correction, args.vllm_importance_sampling_mode = True, "sequence_mask"
    args.vllm_importance_sampling_clip_min, args.vllm_importance_sampling_clip_max = None, 3.0
    assert rollout_engine(args) == "vLLM (colocate), importance sampling by sequence_mask up to 3"


@pytest.mark.parametrize(
    ("config", "processes", "added"),
    [
        ("qwen2.5_math_7b_dapo", 32, []),
        ("qwen2.5_math_7b_dapo", 8, ["--gradient_accumulation_steps", "64"]),
        ("qwen2.5_math_7b_simplerl", 32, []),
    ],
)
def test_the_7b_configs_are_ready_to_run_with_a_small_model_and_data(
    config: str, processes: int, added: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingArguments, "world_size", property(lambda args: processes))
    monkeypatch.setattr("tokenshift.recipes.inputs.installed.find_spec", lambda name: name)
    short, long = tmp_path / "short", tmp_path / "long"
    save_changed_model("pocket", {"max_position_embeddings": 4096}, short)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.chat_template = "{% for turn in messages %}{{ turn['content'] }}{% endfor %}"
    tokenizer.save_pretrained(short)
    save_changed_model(str(short), {"max_position_embeddings": 16384, "rope_theta": 40000.0}, long)
    rows = [
        {
            "prompt": f"{number} + 1",
            "solution": str(number + 1),  # columns of one set, and of the other
            "extra_info": {"question": f"{number} + 1"},
            "reward_model": {"ground_truth": str(number + 1)},
        }
        for number in range(1300)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = read_config(config_file(config)) | {"dataset_name": str(tmp_path / "data.jsonl"), "bf16": False}
    settings["vllm_enable_sleep_mode"] = False  # which a CPU has not
    settings.pop("dataset_config", None)  # which a file has not
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    given = ["--config", str(tmp_path / "config.yaml"), "--output_dir", str(tmp_path / "out"), *added]
    job = prepare([*given, "--model_name_or_path", str(long)])
    job.close()
    assert job.train[0]["prompt"][0]["role"] == "system"
    assert job.args.updates_per_generation == job.args.expected_updates_per_generation
    if config.endswith("dapo"):
        assert [type(reward).__name__ for reward in job.rewards] == ["function", "_SoftOverlongPunishment"]
        with pytest.raises(ValueError, match="reads 4096 tokens"):
            prepare([*given, "--model_name_or_path", str(short)])
