"""All of a training run that can be looked at before a model is loaded."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers import AutoConfig, AutoTokenizer
from trl import ModelConfig

from tokenshift.recipes.command_line.products import (
    BASE_SCORE_FILE,
    LOG_HISTORY_FILE,
    MODEL_DIR,
    NOT_ASKED,
    SUMMARY_FILE,
    checkpoint_to_resume,
    delete_products,
)
from tokenshift.recipes.command_line.wandb_run import RUN_ID_FILE
from tokenshift.recipes.inputs.models import resolve_model
from tokenshift.recipes.inputs.problems import load_problems
from tokenshift.recipes.jobs.training.arguments import RecipeArguments, parse_arguments
from tokenshift.rewards import configure_verification, load_reward
from tokenshift.trainer import DivergenceGRPOConfig
from tokenshift.trainer.resume.checkpoints import STAGING_DIR
from tokenshift.trainer.resume.launch_check import check_launch

PRODUCTS = (
    "checkpoint-*",
    STAGING_DIR,
    MODEL_DIR,
    "completions/*",
    "wandb",
    RUN_ID_FILE,
    BASE_SCORE_FILE,
    SUMMARY_FILE,
    LOG_HISTORY_FILE,
    "training_curves.*",
    "shift",
    "dynamic_sampling.jsonl",
)


@dataclass
class Preparation:
    """A run ready to begin: arguments checked, rewards and problems loaded, the model found but not loaded.

    `goes_on`: whether a resume was asked for, also where there is no checkpoint yet.
    """

    script_args: RecipeArguments
    args: DivergenceGRPOConfig
    model_args: ModelConfig
    rewards: list[Any]
    train: Dataset
    held_out: Dataset
    model_path: str
    goes_on: bool

    @property
    def output_dir(self) -> Path:
        return Path(str(self.args.output_dir))


def prepare(arguments: list[str] | None = None) -> Preparation:
    """Parse, check, load the data.

    Args:
        arguments: words of the command line; `sys.argv`'s when None.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    script_args, args, model_args = parse_arguments(arguments)
    check_launch(PartialState())
    configure_verification(script_args.verify_workers, script_args.verify_timeout)
    lengths = {"overlong_max_length": script_args.overlong_max_length, "overlong_cache": script_args.overlong_cache}
    rewards = [load_reward(name, **lengths) for name in script_args.reward_funcs]
    goes_on = str(args.resume_from_checkpoint or "false").lower() not in NOT_ASKED
    args.resume_from_checkpoint = checkpoint_to_resume(args, script_args.overwrite)
    model_path = resolve_model(str(model_args.model_name_or_path))
    args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(args.model_init_kwargs if isinstance(args.model_init_kwargs, dict) else {}),
    }
    with PartialState().main_process_first():  # one process fills the caches
        train, held_out = training_problems(script_args)
    job = Preparation(script_args, args, model_args, rewards, train, held_out, model_path, goes_on)
    _check_together(job)
    return job


def training_problems(script_args: RecipeArguments) -> tuple[Dataset, Dataset]:
    """Problems to train on, and those held out.

    Raises:
        ValueError: as `load_problems` does.
    """
    return load_problems(
        script_args.dataset_name,
        config=script_args.dataset_config,
        train_split=script_args.dataset_train_split,
        test_split=script_args.dataset_test_split,
        train_size=script_args.train_size,
        eval_size=script_args.eval_size,
        prompt_column=script_args.prompt_column,
        solution_column=script_args.solution_column,
        system_prompt=script_args.system_prompt,
        prompt_template=script_args.prompt_template,
    )


def _check_together(job: Preparation) -> None:
    """What only shows when arguments, data and model are seen together.

    Raises:
        ValueError: for whatever does not fit.
    """
    args = job.args
    if job.output_dir.exists() and not job.output_dir.is_dir():
        raise ValueError(f"output_dir={args.output_dir!r} is a file.")
    weights = args.reward_weights
    if weights is not None and len(weights) != len(job.rewards):
        raise ValueError(f"reward_weights has {len(weights)} numbers for {len(job.rewards)} reward_funcs.")
    prompts = (args.generation_batch_size or 0) // (args.num_generations or 1)
    if len(job.train) < prompts:
        raise ValueError(
            f"The data has {len(job.train)} training problems, but a generation takes {prompts} prompts "
            f"(generation_batch_size={args.generation_batch_size} / num_generations={args.num_generations})."
        )
    if args.use_vllm and find_spec("vllm") is None:
        raise ValueError("use_vllm=True needs vLLM: pip install 'tokenshift[vllm]'.")
    try:
        AutoConfig.from_pretrained(job.model_path, revision=job.model_args.model_revision)
        tokenizer = AutoTokenizer.from_pretrained(job.model_path, revision=job.model_args.model_revision)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"model_name_or_path={job.model_args.model_name_or_path!r} cannot be loaded: {reason}"
        ) from error
    if not isinstance(job.train[0]["prompt"], str) and tokenizer.chat_template is None:
        raise ValueError(
            "The prompts are conversations, but the model's tokenizer has no chat template; use a model that has one, "
            "or prompts that are text."
        )


def prepare_output(job: Preparation) -> None:
    """Make `output_dir`; with `overwrite`, delete from it what an earlier run left, and nothing else.

    To be called when nothing more can go wrong before training: what is deleted is gone.
    """
    with PartialState().main_process_first():
        if PartialState().is_main_process:
            job.output_dir.mkdir(parents=True, exist_ok=True)
            if job.script_args.overwrite and job.args.resume_from_checkpoint is None:
                delete_products(job.output_dir, PRODUCTS)
