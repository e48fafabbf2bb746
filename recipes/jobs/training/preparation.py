"""Checks everything about a training run that can be checked before a model is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers import AutoConfig, AutoTokenizer, Trainer
from trl import ModelConfig
from trl.trainer.utils import get_callable_name

from tokenshift.analysis.sampling.rewarded_rows import check_arguments
from tokenshift.analysis.sampling.token_ids import check_context, encode_prompt
from tokenshift.analysis.storage.main_process import on_main_process
from tokenshift.analysis.storage.own_code import TRUST
from tokenshift.recipes.command_line.earlier_runs import is_resume_wanted
from tokenshift.recipes.command_line.given_options import refuse_without_effect
from tokenshift.recipes.command_line.output_folder import (
    FolderOwner,
    bytes_to_delete,
    check_folder,
    start_over,
    take_folder,
)
from tokenshift.recipes.command_line.resuming import checkpoint_to_resume
from tokenshift.recipes.command_line.run_record import record_launch
from tokenshift.recipes.inputs.changed_models import ROPE_THETA
from tokenshift.recipes.inputs.contents import path_content, problems_content
from tokenshift.recipes.inputs.installed import require_vllm
from tokenshift.recipes.inputs.judging import check_compared, template_without_effect
from tokenshift.recipes.inputs.model_files import check_causal_config, check_weights, refusal
from tokenshift.recipes.inputs.models import folder_generation_config, require_chat_template, resolve_model
from tokenshift.recipes.jobs.training.arguments import RecipeArguments, parse_arguments
from tokenshift.recipes.jobs.training.early import check_reward_weights
from tokenshift.rewards import load_reward
from tokenshift.trainer import DivergenceGRPOConfig
from tokenshift.trainer.dynamic_sampling.filtering_reward import filtering_reward
from tokenshift.trainer.generation_batch import check_prompts
from tokenshift.trainer.policy.rollout_settings import check_folder_settings
from tokenshift.trainer.policy.vllm_settings import check_vllm_length, check_vllm_settings
from tokenshift.trainer.resume.disk_space import check_training_room
from tokenshift.trainer.resume.launch_check import check_launch
from tokenshift.trainer.resume.process_group import is_launched, meet
from tokenshift.trainer.resume.same_settings import check_same_settings, settings_of

LOADING_OPTIONS = (
    *("revision", "attn_implementation", "dtype", "torch_dtype", "device_map", "quantization_config"),
    *("trust_remote_code", "low_cpu_mem_usage", "use_cache", "experts_implementation", "token", "cache_dir"),
)
"""Arguments of `from_pretrained` that do not change what the model computes."""

TRAINING_COLUMNS = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")
"""Arguments that TRL gives to every reward, beside the columns of the data."""


@dataclass
class Preparation(FolderOwner):
    """A run ready to begin: arguments checked, rewards and problems loaded, the model found but not loaded.

    Attributes:
        script_args, args, model_args: the recipe's, the trainer's and the model's arguments.
        rewards: the reward functions.
        train, held_out: problems to train on, and problems on which accuracy is measured.
        model_path: the folder or hub name of the model.
        goes_on: whether a resume was asked for, also where there is no checkpoint yet.
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
    if script_args.dry_run:  # in a config, where the number of processes would come too late
        raise ValueError("dry_run is set in the config; give it on the command line: --dry_run.")
    check_launch(PartialState())
    meet()
    check_same_settings(settings_of(script_args, args, model_args))
    script_args.configure_verification()
    lengths = {"overlong_max_length": script_args.overlong_max_length, "overlong_cache": script_args.overlong_cache}
    rewards = [load_reward(name, **lengths) for name in script_args.reward_funcs]
    _find_filtering_reward(args, script_args.reward_funcs, rewards)
    output_dir, where = Path(str(args.output_dir)), f"output_dir={args.output_dir!r}"
    check_folder(output_dir, "training", where)
    checkpoint_to_resume(args, script_args.overwrite, tell=False)  # a mistake is named before the problems are loaded
    model_path = resolve_model(str(model_args.model_name_or_path))
    args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(args.model_init_kwargs if isinstance(args.model_init_kwargs, dict) else {}),
    }
    with PartialState().main_process_first():  # one process fills the caches
        train, held_out = script_args.training_problems(script_args.dataset_train_split)
    for reward in rewards:
        check_arguments(reward, [*TRAINING_COLUMNS, *(name for name in train.column_names if name != "prompt")])
    for data in (train, held_out):
        check_compared(data, script_args.reward_funcs)
    goes_on = is_resume_wanted(args)
    job = Preparation(script_args, args, model_args, rewards, train, held_out, model_path, goes_on)
    _check_together(job)
    if is_launched():
        problems = {"the training problems": train, "the held-out problems": held_out}
        check_same_settings({name: repr(problems_content(data)) for name, data in problems.items()}, "data")
    refuse_without_effect((script_args, args, model_args), template_without_effect([train]))
    job.lock = take_folder(output_dir, "training", where)
    args.resume_from_checkpoint = checkpoint_to_resume(args, script_args.overwrite)  # now that no other run saves
    return job


def _find_filtering_reward(args: DivergenceGRPOConfig, names: list[str], rewards: list[Any]) -> None:
    """Give dynamic sampling the filtering reward by the name that the trainer knows it by.

    Args:
        args: the trainer's arguments, whose `dynamic_sampling_metric` is one of `names`, or None.
        names: names or dotted paths of the rewards, as given.
        rewards: the reward functions.

    Raises:
        ValueError: if there is no such reward, or it cannot filter.
    """
    if not args.dynamic_sampling:
        return
    (index,) = filtering_reward(args.dynamic_sampling_metric, names, args.correct_threshold).columns
    if args.dynamic_sampling_metric is not None:
        args.dynamic_sampling_metric = get_callable_name(rewards[index])
        filtering_reward(args.dynamic_sampling_metric, [get_callable_name(reward) for reward in rewards])


def _check_together(job: Preparation) -> None:
    """Check whether arguments, data and model fit together.

    Raises:
        ValueError: for whatever does not fit.
    """
    args = job.args
    check_reward_weights(args.reward_weights, job.rewards)
    check_prompts(len(job.train), args.generation_batch_size or 0, args.num_generations or 1)
    if args.use_vllm:
        require_vllm("use_vllm=True", "vllm")
    check_vllm_settings(args, args.world_size)
    try:
        config = _model_config(job)
        tokenizer = AutoTokenizer.from_pretrained(
            job.model_path, revision=job.model_args.model_revision, trust_remote_code=_is_code_trusted(args)
        )
    except Exception as error:  # whatever the files make transformers raise
        raise refusal("model_name_or_path", str(job.model_args.model_name_or_path), error) from error
    check_causal_config("model_name_or_path", str(job.model_args.model_name_or_path), config)
    check_weights(
        "model_name_or_path",
        str(job.model_args.model_name_or_path),
        job.model_path,
        trust_remote_code=_is_code_trusted(args),
    )
    _check_rollouts(job)
    require_chat_template(job.train[0]["prompt"], tokenizer, "the model's tokenizer")
    template_kwargs = args.chat_template_kwargs if isinstance(args.chat_template_kwargs, dict) else None
    read = [*job.train["prompt"], *job.held_out["prompt"]]
    lengths = [len(encode_prompt(tokenizer, prompt, template_kwargs)) for prompt in read]
    check_vllm_length(args, lengths)
    check_context(
        config,
        lengths,
        args.max_completion_length or 1,
        model=f"model_name_or_path={job.model_args.model_name_or_path!r}",
        setting="max_completion_length",
    )


def _check_rollouts(job: Preparation) -> None:
    """Refuse settings by which rollouts would be sampled from another policy than the one that is trained.

    These are settings in the model's folder that change what `generate` samples and that TRL does not set itself, and
    changes of the model's config that vLLM does not know of.

    Raises:
        ValueError: for such settings: the policy's probabilities would not be those that rollouts are sampled with.
    """
    args = job.args
    if args.use_vllm:  # which is given all settings of sampling, and reads the config of the model's folder
        changes = [name for name in args.model_init_kwargs or () if name not in LOADING_OPTIONS]
        if changes:
            raise ValueError(
                f"model_init_kwargs sets {', '.join(changes)}, which vLLM would not have: it loads the model by the "
                "config of its folder. Save a copy of the model by recipes/change_model.py, and name that folder as "
                "model_name_or_path."
            )
        return
    config = folder_generation_config(job.model_path, job.model_args.model_revision)
    check_folder_settings(config, args, f"model_name_or_path={job.model_args.model_name_or_path!r}")


def _is_code_trusted(args: DivergenceGRPOConfig) -> bool:
    """Whether code that comes with the model may run, as TRL takes it: `model_init_kwargs` goes before the option."""
    return bool(dict(args.model_init_kwargs or {}).get(TRUST, args.trust_remote_code))  # type: ignore[arg-type]


def _model_config(job: Preparation) -> Any:
    """The config that the model will be loaded with, changed by `model_init_kwargs`.

    Raises:
        ValueError: for a rotary base that the config would not take.
    """
    settings: dict[str, Any] = dict(job.args.model_init_kwargs or {})  # type: ignore[arg-type]  # a dictionary by now
    for name in ("attn_implementation", "device_map", "dtype", "quantization_config"):
        settings.pop(name, None)
    settings[TRUST] = _is_code_trusted(job.args)  # transformers would ask on the terminal where it is not set
    config = AutoConfig.from_pretrained(job.model_path, **settings)
    if ROPE_THETA in settings and not hasattr(config, ROPE_THETA):
        raise ValueError(
            f"model_init_kwargs sets {ROPE_THETA}={settings[ROPE_THETA]!r}, which is read from rope_parameters: "
            f'give {{"rope_parameters": {{"rope_type": "default", "{ROPE_THETA}": {settings[ROPE_THETA]!r}}}}}.'
        )
    return config


def prepare_training_output(job: Preparation, trainer: Trainer) -> None:
    """With `overwrite`, delete from `output_dir` what an earlier training left, and nothing else; record the launch.

    To be called when nothing more can go wrong before training: what is deleted is gone.

    Raises:
        DiskFullError: if there is too little room for the new run even then; nothing is deleted.
    """
    if job.script_args.overwrite and job.args.resume_from_checkpoint is None:
        freed = bytes_to_delete(job.output_dir, "training")
        on_main_process(lambda: check_training_room(trainer, job.output_dir, freed))
        start_over(job.output_dir, "training")
    on_main_process(lambda: record_training(job))


def record_training(job: Preparation) -> None:
    """Write the training's `config.yaml`; for the main process alone."""
    from_checkpoint = job.args.resume_from_checkpoint
    name = str(job.model_args.model_name_or_path)
    record_launch(
        job.output_dir,
        (job.script_args, job.args, job.model_args),
        goes_on=job.goes_on,
        **({} if from_checkpoint is None else {"resumed_from": Path(str(from_checkpoint)).name}),
        models={"base": {"name": name, "content": path_content(job.model_path, _model_config(job))}},
        data={
            "name": job.script_args.dataset_name,
            "training": problems_content(job.train),
            "held_out": problems_content(job.held_out),
        },
    )
