"""The recipe's command line: what is taken, and mistakes in one line before a model is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from tokenshift.recipes.inputs.models import resolve_model
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


@pytest.mark.parametrize("config", sorted(RECIPES.glob("configs/[!c]*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_parse(config: Path, tmp_path: Path) -> None:
    on_cpu = ["--bf16", "false", "--use_vllm", "false"]
    script_args, args, _ = parse_arguments(["--config", str(config), *on_cpu])
    assert args.updates_per_generation in (2, 4, 16)
    headings = [line for line in config.read_text().splitlines() if line in ("# Model", "# Data", "# Trainer")]
    assert headings == ["# Model", "# Data", "# Trainer"]
    assert script_args.reward_funcs[0] == "accuracy_reward"


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
