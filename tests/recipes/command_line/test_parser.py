"""The recipe's command line: what is taken, and mistakes in one line before a model is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import TrainingArguments

from tokenshift.recipes.command_line.config_files import read_config
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.inputs.models import resolve_model
from tokenshift.recipes.jobs.analysis.evaluation import EvaluationArguments
from tokenshift.recipes.jobs.training.arguments import parse_arguments
from tokenshift.recipes.jobs.training.preparation import prepare

RECIPES = Path(__file__).parents[3] / "recipes"


def test_no_argument_is_the_embedded_example() -> None:
    script_args, args, model_args = parse_arguments([])
    assert model_args.model_name_or_path == "pocket"
    assert script_args.dataset_name == "pocket"
    assert args.updates_per_generation > 1
    assert Path(resolve_model("pocket"), "model.safetensors").is_file()


def test_command_line_goes_over_the_config() -> None:
    config = f"--config={RECIPES / 'configs' / 'pocket.yaml'}"
    _, args, _ = parse_arguments([config, "--divergence_alpha", "-7", "--max_steps=3"])
    assert (args.divergence_alpha, args.max_steps) == (-7.0, 3)


def test_another_model_does_not_get_pockets_settings() -> None:
    _, args, _ = parse_arguments(["--model_name_or_path", "some/model", "--num_iterations", "2"])
    assert args.learning_rate == pytest.approx(1e-6)  # TRL's


LAUNCHES = {
    "qwen2.5_math_7b_dapo": {32: [], 8: ["--gradient_accumulation_steps", "64"]},
    "qwen2.5_math_7b_simplerl": {32: [], 8: ["--gradient_accumulation_steps", "128"]},
}
"""Configs for several GPUs: number of processes -> what the config's own command line adds."""

TRAININGS = [
    (path, processes)
    for path in sorted(RECIPES.glob("configs/[!cer]*.yaml"))
    for processes in LAUNCHES.get(path.stem, {1: []})
]


def set_processes(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(TrainingArguments, "world_size", property(lambda args: count))


@pytest.mark.parametrize(("config", "processes"), TRAININGS, ids=lambda value: getattr(value, "stem", str(value)))
def test_shipped_configs_parse(config: Path, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_processes(monkeypatch, processes)
    added = LAUNCHES.get(config.stem, {}).get(processes, [])
    given = read_config(config)
    # as on a GPU, where bf16 and vLLM are on: nothing is unknown, and nothing is without effect
    script_args, args, model_args = parse_arguments(["--config", str(config), "--bf16", "false", *added])
    for name, value in given.items():
        if name not in ("bf16", *(word.removeprefix("--") for word in added)):
            owner = next(owner for owner in (script_args, args, model_args) if hasattr(owner, name))
            assert getattr(owner, name) == value or name == "report_to", name
    assert args.updates_per_generation in (2, 4, 16)
    headings = [line for line in config.read_text().splitlines() if line in ("# Model", "# Data", "# Trainer")]
    assert headings == ["# Model", "# Data", "# Trainer"]
    assert script_args.reward_funcs[0] in ("accuracy_reward", "signed_accuracy_reward")
    if "expected_updates_per_generation" in given:
        assert all(f"{name}" in config.read_text() for name in ("--num_machines", "--machine_rank", "--num_processes"))
        assert all(f"{name}" in config.read_text() for name in ("--main_process_ip", "--main_process_port"))
        assert " ".join([config.name, *added]) in config.read_text(), "the launch line is not the one that is tested"


@pytest.mark.parametrize("config", sorted(RECIPES.glob("configs/evaluate_*.yaml")), ids=lambda path: path.stem)
def test_shipped_evaluations_parse(config: Path) -> None:
    (args,) = parse_into((EvaluationArguments,), ["--config", str(config)])
    assert (args.samples, args.temperature, args.top_p) == (32, 1.0, 0.7)
    for name, value in read_config(config).items():
        assert getattr(args, name) == value, name
    for column in ("dataset_split", "prompt_column", "solution_column"):
        assert len(getattr(args, column)) == len(args.datasets)
    assert "unverified" in config.read_text()


def test_every_shipped_config_is_tested() -> None:
    names = {path.stem for path in RECIPES.glob("configs/*.yaml")}
    tested = {path.stem for path, _ in TRAININGS} | {path.stem for path in RECIPES.glob("configs/evaluate_*.yaml")}
    assert {name for name in names - tested if not name.startswith(("compare_", "reproduce_"))} == set()
    assert {name for name in names if name.startswith("qwen")} == LAUNCHES.keys()


def test_a_wrong_number_of_processes_is_refused_with_the_way_to_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--config", "qwen2.5_math_7b_dapo", "--bf16", "false"]
    set_processes(monkeypatch, 8)
    message = (
        r"^expected_updates_per_generation=16, but 64 follow from generation_batch_size=8192 \* num_iterations=1 / "
        r"\(per_device_train_batch_size=1 \* 8 processes \* gradient_accumulation_steps=16\); with this number of "
        r"processes give gradient_accumulation_steps=64\.$"
    )
    with pytest.raises(ValueError, match=message):
        parse_arguments(words)
    assert parse_arguments([*words, "--gradient_accumulation_steps", "64"])[1].updates_per_generation == 16


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--max_stepz", "3"], "--max_stepz is no argument; did you mean max_steps?"),
        (["--config", "nowhere.yaml"], "'nowhere.yaml' is not a file"),
        (["--config"], "--config '' is not a file"),
        (["--learning_rate", "fast"], "invalid float value: 'fast'"),
        (["--advantage_weighting", "zigmoid"], "advantage_weighting='zigmoid' is no weighting; did you mean sigmoid?"),
        (["--divergence_alpha", "nan"], "divergence_alpha=nan must be a finite number"),
        (["--steps_per_generation", "1"], "compares the policy with itself"),
        (["--eval_size", "0"], "eval_size=0 must be at least 1"),
        (["--verify_timeout", "0"], "verify_timeout=0.0 must be positive"),
        (["--dataset_name", "gone.csv"], "there is no such file"),
        (["--eval_size", "99999"], "holds 1 to"),
        (["--reward_funcs", "acuracy"], "reward_funcs='acuracy' is no reward"),
        (["--reward_funcs", "get_soft_overlong_punishment"], "needs 0 < overlong_cache"),
        (["--model_name_or_path", "./gone", "--num_iterations", "2"], "'./gone' is not a folder with a config.json"),
        (["--resume_from_checkpoint", "gone"], "resume_from_checkpoint='gone' is not a checkpoint folder"),
        (["--loss_type", "vespo"], "weighs whole sequences"),
        (["--train_size", "4"], "has 4 training problems, but a generation takes 16 prompts"),
        (["--reward_weights", "1", "2"], "reward_weights has 2 numbers for 1 reward_funcs"),
        (["--verify_timeout", "inf"], "verify_timeout=inf must be positive, at most 3600"),
        (["--num_generations", "0"], "num_generations=0 must be at least 1"),
        (["--model_name_or_path", "no/such-model", "--num_iterations", "2"], "'no/such-model' cannot be loaded"),
        (["--output_dir", __file__], "is a file"),
        (["--reward_funcs", ".foo.bar"], "is not a dotted path"),
        (
            ["--dynamic_sampling", "true", "--dynamic_sampling_metric", "acc"],
            "dynamic_sampling_metric='acc' is none of the rewards, which are accuracy_reward.",
        ),
        (
            [
                *("--reward_funcs", "get_soft_overlong_punishment", "accuracy_reward", "--overlong_max_length", "9"),
                *("--overlong_cache", "4", "--dynamic_sampling", "true"),
            ],
            "get_soft_overlong_punishment, the first reward, is a graded length penalty, which cannot tell right",
        ),
    ],
)
def test_mistakes(arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # away from what runs left in outputs/
    with pytest.raises(ValueError, match=words.replace("?", r"\?")) as error:
        prepare(arguments)
    assert "\n" not in str(error.value).strip()


def test_unknown_key_and_nonsense_in_a_config(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("model_name_or_path: pocket\nlearning_rat: 1\n")
    with pytest.raises(ValueError, match=r"the config's learning_rat is no argument; did you mean learning_rate\?"):
        parse_arguments(["--config", str(config)])
    config.write_text("- a list\n")
    with pytest.raises(ValueError, match="mapping"):
        parse_arguments(["--config", str(config)])
    config.write_text("a: [unclosed\n")
    with pytest.raises(ValueError, match="is not YAML"):
        parse_arguments(["--config", str(config)])


def test_exit_status_and_one_line() -> None:
    run = subprocess.run(
        [sys.executable, str(RECIPES / "grpo_divweighted.py"), "--divergence_scale", "-1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr.strip().splitlines() == [
        "grpo_divweighted.py: divergence_scale=-1.0 must be >= 0; divergence_alpha carries the sign."
    ]
