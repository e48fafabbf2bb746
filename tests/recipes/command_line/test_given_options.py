"""Options that would have no effect are refused where they are given, and pass where they are not."""

import json
from pathlib import Path
from typing import Any

import pytest

from tokenshift.recipes.analyze_shift import AnalyzeShiftArguments
from tokenshift.recipes.analyze_shift import prepare as prepare_shift_analysis
from tokenshift.recipes.benchmark import BenchmarkArguments
from tokenshift.recipes.command_line.given_options import GIVEN
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.jobs.analysis.cross_sampling import CrossArguments
from tokenshift.recipes.jobs.analysis.evaluation import EvaluationArguments
from tokenshift.recipes.jobs.analysis.evaluation import prepare as prepare_evaluation
from tokenshift.recipes.jobs.analysis.evolution import EvolutionArguments
from tokenshift.recipes.jobs.analysis.robustness import RobustnessArguments
from tokenshift.recipes.jobs.comparison.variants import resolved_training
from tokenshift.recipes.jobs.sft import preparation as sft_preparation
from tokenshift.recipes.jobs.training.arguments import parse_arguments
from tokenshift.trainer import DivergenceGRPOConfig

ANALYSES: dict[str, Any] = {
    "shift": AnalyzeShiftArguments,
    "evolution": EvolutionArguments,
    "robustness": RobustnessArguments,
    "cross": CrossArguments,
    "evaluate": EvaluationArguments,
    "benchmark": BenchmarkArguments,
}
MADE = "'pocket' is made as it is; leave it out"


def parse(command: str, words: list[str]) -> Any:
    if command == "train":
        return parse_arguments(words)
    if command == "sft":
        return sft_preparation.parse_sft_arguments(words)
    return parse_into((ANALYSES[command],), words)


@pytest.mark.parametrize(
    ("command", "words", "reason"),
    [
        *(
            (command, [f"--{name}", value], MADE)
            for command in ("train", "sft", "shift", "evolution", "robustness", "cross")
            for name, value in (("prompt_template", "Q: {prompt}"), ("prompt_column", "question"))
        ),
        ("train", ["--system_prompt", "Think."], MADE),
        ("train", ["--dataset_name", "sums", "--solution_column", "answer"], "'sums' is made as it is"),
        ("train", ["--prompt_column", "prompt"], MADE),  # the default too, where it is given
        ("shift", ["--dataset_config", "en"], MADE),
        ("evaluate", ["--prompt_template", "Q: {prompt}"], "pocket is made as it is; leave it out"),
        ("evaluate", ["--solution_column", "answer"], "pocket is made as it is"),
        ("train", ["--dataset_test_split", "validation"], "'pocket' has splits of its own"),
        ("train", ["--dataset_train_split", "train"], "'pocket' has splits of its own"),
        ("sft", ["--dataset_split", "train"], "'pocket' has splits of its own"),
        ("train", ["--dataset_streaming", "true"], "no recipe reads it"),
        ("train", ["--overlong_cache", "5"], "no reward of reward_funcs takes it; add get_soft_overlong_punishment"),
        ("train", ["--reward_funcs", "format_reward", "--verify_workers", "3"], "format_reward verifies no answers"),
        ("shift", ["--reward_func", "format_reward", "--verify_timeout", "3"], "format_reward verifies no answers"),
        ("sft", ["--reward_func", "format_reward", "--verify_decimal_comma", "true"], "verifies no answers"),
        ("train", ["--report_to", "none", "--wandb_project", "p"], "nothing is reported to W&B"),
        ("train", ["--vllm_gpu_memory_utilization", "0.5"], "vLLM is not used; give --use_vllm true"),
        ("train", ["--low_prob_coef", "0.3"], "advantage_weighting='sigmoid' does not take it"),
        ("train", ["--advantage_weighting", "low_prob", "--divergence_alpha", "3"], "='low_prob' does not take it"),
        ("train", ["--advantage_weighting", "none", "--divergence", "k1"], "give --log_divergence true to log it"),
        ("train", ["--advantage_weighting", "none", "--weight_control", "mean"], "advantage_weighting is none"),
        ("train", ["--log_divergence", "false"], "divergences are always logged"),
        ("train", ["--dynamic_sampling_max_rounds", "5"], "dynamic_sampling is off"),
        ("train", ["--dynamic_sampling_metric", "accuracy_reward"], "dynamic_sampling is off"),
        ("train", ["--model_name_or_path", "pocket", "--num_iterations", "2", "--probe_size", "5"], "no shift probe"),
        ("train", ["--eval_steps", "5"], "eval_strategy is no"),
        ("train", ["--num_train_epochs", "2"], "max_steps=120 ends the training; give --max_steps -1"),
        ("train", ["--lora_r", "8"], "no adapter is trained; give --use_peft true"),
        ("train", ["--bnb_4bit_quant_type", "nf4"], "not quantized to 4 bits"),
        ("train", ["--hub_model_id", "me/mine"], "nothing is pushed"),
        ("train", ["--save_strategy", "no", "--save_steps", "5"], "save_strategy is no"),
        ("train", ["--log_unique_prompts", "true"], "log_completions is off"),
        ("train", ["--loss_type", "cispo", "--epsilon", "0.3"], "the loss cispo does not clip by it"),
        ("train", ["--loss_type", "sapo", "--epsilon_high", "0.3"], "the loss sapo does not clip by it"),
        ("train", ["--max_tool_calling_iterations", "3"], "this recipe has no tools"),
        ("train", ["--data_seed", "7"], "TRL's samplers take seed alone"),
        ("train", ["--ref_model_sync_steps", "5"], "sync_ref_model is off"),
        ("train", ["--sapo_temperature_pos", "2"], "loss_type is dapo; give --loss_type sapo"),
        ("train", ["--model_revision", "v1"], "'pocket' has no revisions"),
        ("train", ["--overwrite", "true", "--resume_from_checkpoint", "true"], "goes on with what is there"),
        ("sft", ["--completion_column", "completion"], "it takes no completion_column"),
        ("sft", ["--target_accuracy", "0.5", "--rl_model", "pocket"], "target_accuracy is the target"),
        ("sft", ["--assistant_only_loss", "true"], "the solutions are tokenized by this recipe"),
        ("sft", ["--model_revision", "v1"], "write --base_model NAME@REVISION"),
        ("evolution", ["--rl_model", "pocket"], "the last of the checkpoints is the model after RL"),
        ("robustness", ["--temperature", "0.7"], "temperatures has those that are sampled at"),
        ("robustness", ["--kinds", "rl", "--mixed_epsilon", "0.2"], "kinds does not name the mixed policy"),
        ("cross", ["--batch_tokens", "64"], "cross-sampling scores no responses"),
        ("cross", ["--epsilons", "0.1", "--pilot", "5"], "it is of the pilot, which finds thresholds for budgets"),
        ("cross", ["--epsilons", "0.1", "--seed", "5"], "it is of the pilot"),
        ("cross", ["--criteria", "none", "all", "--most", "3"], "criteria names none and all alone"),
        (
            "train",
            [
                *("--use_vllm", "true", "--vllm_importance_sampling_correction", "false"),
                *("--vllm_importance_sampling_clip_max", "2"),
            ],
            "vllm_importance_sampling_correction is off",
        ),
        ("evaluate", ["--use_vllm", "true", "--dtype", "float32"], "vLLM loads the models by their own configs"),
        ("benchmark", ["--parts", "errors", "--rounds", "3"], "it is for statistics, scoring, "),
        ("benchmark", ["--epsilon", "0.1"], "it is for cross_sampling, and parts names none of these"),
    ],
)
def test_refused(command: str, words: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match="has no effect: ") as error:
        parse(command, words)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).split("=")[0] in [word.lstrip("-") for word in words]


@pytest.mark.parametrize(("command", "others"), [("train", "num_iterations: 2\n"), ("sft", "")])
def test_a_refusal_does_not_repeat_a_secret(command: str, others: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"hub_token: private-thing-17\n{others}")
    with pytest.raises(ValueError, match=r"^hub_token='<SECRET>' has no effect: nothing is pushed"):
        parse(command, ["--config", str(tmp_path / "config.yaml")])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        *((command, []) for command in ("train", "sft", *ANALYSES)),
        ("train", ["--dataset_name", "mine.jsonl", "--prompt_template", "Q: {prompt}", "--dataset_test_split", "t"]),
        ("train", ["--use_vllm", "true", "--vllm_gpu_memory_utilization", "0.5"]),
        ("train", ["--use_peft", "true", "--lora_r", "8"]),
        ("train", ["--advantage_weighting", "low_prob", "--low_prob_coef", "0.3"]),
        ("train", ["--dynamic_sampling", "true", "--dynamic_sampling_max_rounds", "5"]),
        ("train", ["--max_steps", "-1", "--num_train_epochs", "2"]),
        ("cross", ["--budgets", "0.1", "--pilot", "5", "--seed", "3"]),
        ("robustness", ["--mixed_epsilon", "0.2"]),
        ("benchmark", ["--parts", "cross_sampling", "--epsilon", "0.1", "--model", "pocket"]),
        ("evaluate", ["--answer_extractor", "math", "--correct_threshold", "0.5"]),
    ],
)
def test_not_refused(command: str, words: list[str]) -> None:
    assert parse(command, words)


def test_a_config_counts_where_it_changes_something(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    settings = "model_name_or_path: pocket\nnum_iterations: 2\n"
    config.write_text(settings + "low_prob_coef: 0.5\n")
    with pytest.raises(ValueError, match=r"low_prob_coef=0.5 has no effect: advantage_weighting='sigmoid'"):
        parse_arguments(["--config", str(config)])
    config.write_text(settings + "low_prob_coef: 0.2\n")  # its default
    parse_arguments(["--config", str(config)])
    # what the command line makes idle is as if it were not there
    config.write_text(settings + "advantage_weighting: low_prob\nlow_prob_coef: 0.5\n")
    assert parse_arguments(["--config", str(config)])[1].low_prob_coef == 0.5
    recipe, args, _ = parse_arguments(["--config", str(config), "--advantage_weighting", "none"])
    assert args.low_prob_coef == 0.2
    assert getattr(recipe, GIVEN) == {
        "model_name_or_path",
        "num_iterations",
        "advantage_weighting",
        "low_prob_coef",
    }


def test_the_arguments_that_are_used_are_the_last_that_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries go by them: transformers keeps a weak reference to the last DeepSpeed config; ZeRO-3 loads by it."""
    made: list[Any] = []
    after_init = DivergenceGRPOConfig.__post_init__

    def followed(self: DivergenceGRPOConfig) -> None:
        made.append(self)
        after_init(self)

    monkeypatch.setattr(DivergenceGRPOConfig, "__post_init__", followed)
    config = tmp_path / "mine.yaml"
    config.write_text("model_name_or_path: pocket\nnum_iterations: 2\ndivergence_alpha: 9.0\n")
    args = parse_arguments(["--config", str(config), "--advantage_weighting", "none"])[1]
    assert len(made) > 1, "the config was not looked at alone: the test shows nothing"
    assert made[-1] is args


def test_in_a_comparison_a_common_setting_may_be_of_some_variants_alone(tmp_path: Path) -> None:
    common = {"model_name_or_path": "pocket", "num_iterations": 2, "divergence_alpha": 50.0}
    resolved, _, idle = resolved_training({**common, "advantage_weighting": "none"}, 1, tmp_path)
    assert idle == {"divergence_alpha"}
    assert "divergence_alpha" not in resolved
    resolved, _, idle = resolved_training(common, 1, tmp_path)
    assert (resolved["divergence_alpha"], idle) == (50.0, set())
    with pytest.raises(ValueError, match=r"divergence_alpha=50\.0 has no effect: advantage_weighting='none'"):
        resolved_training({**common, "advantage_weighting": "none"}, 1, tmp_path, ["divergence_alpha"])


def test_what_only_the_data_shows(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n} + 1 =", "completion": str(n + 1), "correct": True} for n in range(3)]
    file = tmp_path / "given.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--trajectories", str(file), "--rl_model", "pocket", "--output_dir", str(tmp_path / "out")]
    for name, value in (("samples", "2"), ("dataset_name", "sums"), ("seed", "3"), ("size", "5")):
        with pytest.raises(
            ValueError, match=f"{name}=.* has no effect: trajectories=.* brings problems and responses"
        ):
            prepare_shift_analysis([*words, f"--{name}", value])
    with pytest.raises(ValueError, match=r"correct_threshold=0\.5 has no effect: no response of trajectories="):
        prepare_shift_analysis([*words, "--correct_threshold", "0.5"])
    prepare_shift_analysis([*words, "--top_p", "0.9"]).close()  # the distributions are truncated at it

    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"prompt": "1 + 1 ="}\n')
    words = ["--model", "pocket", "--datasets", str(problems), "--solution_column", "none", "--output_dir"]
    words += [str(tmp_path / "evaluated")]
    with pytest.raises(ValueError, match="answer_extractor='math' has no effect: no set has gold answers"):
        prepare_evaluation([*words, "--answer_extractor", "math"])
    with pytest.raises(ValueError, match=r"chat_template_kwargs=.* has no effect: the prompts are text"):
        prepare_evaluation([*words, "--chat_template_kwargs", '{"enable_thinking": false}'])
    with pytest.raises(ValueError, match=r"dataset_config='en' has no effect: .* no configurations"):
        prepare_evaluation([*words, "--dataset_config", "en"])
    words += ["--prompt_template", "Q: {prompt}", "--size", "1", "--max_new_tokens", "4"]
    job = prepare_evaluation([*words, "--datasets", "pocket", str(problems)])
    job.close()
    assert job.notes == ["prompt_template is not for pocket, which is made as it is."]
