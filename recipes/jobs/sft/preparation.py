"""Arguments of the supervised control, and everything about a run that can be checked before a model is loaded."""

import copyreg
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import str_to_bool
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from transformers import Trainer
from trl import ModelConfig, SFTConfig

from tokenshift.analysis.sampling.correctness import check_correct_threshold
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.token_ids import check_context, context_length, encode_prompt
from tokenshift.analysis.secrets import hide_secrets, remember_secrets
from tokenshift.analysis.storage.main_process import on_main_process
from tokenshift.analysis.thresholds import CORRECT
from tokenshift.recipes.command_line.earlier_runs import is_resume_wanted
from tokenshift.recipes.command_line.output_folder import (
    FolderOwner,
    bytes_to_delete,
    check_folder,
    start_over,
    take_folder,
)
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.command_line.products import MODEL_DIR, SUMMARY_FILE
from tokenshift.recipes.command_line.resuming import checkpoint_to_resume
from tokenshift.recipes.command_line.run_record import record_launch
from tokenshift.recipes.command_line.trl_options import library_options_without_effect
from tokenshift.recipes.inputs.contents import model_content, problems_content
from tokenshift.recipes.inputs.engines import (
    VLLM,
    EngineArguments,
    check_engine,
    check_engine_arguments,
    engine_without_effect,
)
from tokenshift.recipes.inputs.judging import check_compared, verification_without_effect
from tokenshift.recipes.inputs.models import (
    ModelSource,
    find_model,
    model_ends,
    require_chat_template,
    require_shared_vocabulary,
    weights_dtype,
)
from tokenshift.recipes.inputs.problem_arguments import TrainingProblemArguments
from tokenshift.recipes.inputs.problems import MADE
from tokenshift.recipes.inputs.sampling import LONGEST_RESPONSE
from tokenshift.recipes.inputs.verification_arguments import VerificationArguments
from tokenshift.recipes.jobs.sft.early import check_model_setting
from tokenshift.recipes.jobs.sft.heldout_problems import HeldOutProblems
from tokenshift.recipes.jobs.sft.solutions import load_solutions, tokenized_solutions
from tokenshift.recipes.jobs.sft.wordings import check_wording
from tokenshift.rewards import load_reward
from tokenshift.trainer.guard.config_numbers import check_config_numbers
from tokenshift.trainer.guard.trackers import check_trackers
from tokenshift.trainer.resume.disk_space import check_training_room
from tokenshift.trainer.resume.launch_check import check_launch
from tokenshift.trainer.resume.process_group import meet, start_cpu_group
from tokenshift.trainer.resume.same_settings import check_same_settings, settings_of


class ControlConfig(SFTConfig):
    """TRL's config, whose `ddp_timeout` is that of processes on CPU too; it is pickled as TRL's."""

    def __post_init__(self) -> None:
        start_cpu_group(self)
        super().__post_init__()


def _pickled_without_secrets(args: SFTConfig) -> tuple[Any, ...]:
    return object.__new__, (SFTConfig,), {name: hide_secrets(value, name) for name, value in vars(args).items()}


for config in (SFTConfig, ControlConfig):
    copyreg.pickle(config, _pickled_without_secrets)  # as `training_args.bin`

POCKET_SETTINGS: dict[str, Any] = {
    "output_dir": "outputs/pocket/sft",
    "learning_rate": 2e-4,
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 5,
    "max_steps": 1000,
    "per_device_train_batch_size": 32,
    "gradient_checkpointing": False,
    "bf16": False,
    "save_strategy": "no",
    "seed": 0,
}
"""Settings of a run that names neither a config nor a base model; other runs start from TRL's defaults."""


OF_RAW_TEXT = (
    *("dataset_text_field", "completion_only_loss", "assistant_only_loss", "truncation_mode", "eval_packing"),
    "dataset_kwargs",
)
"""Options of TRL for data that is not tokenized yet."""


@dataclass
class SftControlArguments(EngineArguments, VerificationArguments, TrainingProblemArguments):
    """
    The control: its models, target and judge, and how responses are sampled.

    Parameters:
        base_model, rl_model (`str`):
            `pocket`, `smollm2`, a folder, a hub name or `name@revision`; whole models or PEFT adapters. The RL model's
            accuracy on the held-out problems is the target.
        target_accuracy (`float`, *optional*):
            The target instead; no RL model is needed then.
        dataset_split (`str`):
            The split to learn from.
        completion_column (`str`):
            The column with the correct solutions of data that is not made here.
        wording (`str`):
            How pocket's solutions are worded: `own`, as its base words them, or `taught`, in other phrases.
        check_steps (`int`):
            Updates between measurements of accuracy.
        reward_func (`str`), correct_threshold (`float`):
            The judge of responses; correct are those whose reward is at least the threshold.
        temperature, top_p, max_new_tokens, batch_size:
            How responses are sampled to measure accuracy.
        engine (`str`):
            What makes these responses: `transformers`, or `vllm`, an engine beside the training that gets the weights
            at each measurement; it makes the same responses but for rounding.
        vllm_gpu_memory_utilization (`float`):
            Share of each GPU's memory for vLLM; the training has the rest.
        overwrite (`bool`):
            Delete what an earlier run left in `output_dir`.
    """

    base_model: str = field(default="pocket", metadata={"help": "The model to fine-tune."})
    rl_model: str = field(default="outputs/pocket/model", metadata={"help": "Its accuracy is the target."})
    target_accuracy: float | None = field(default=None, metadata={"help": "The target, instead of an RL model's."})
    dataset_split: str = field(default="train", metadata={"help": "Split to learn from."})
    wording: str = field(
        default="own", metadata={"help": "How pocket's solutions are worded: own, as its base's, or taught."}
    )
    completion_column: str = field(default="completion", metadata={"help": "Column with the correct solutions."})
    check_steps: int = field(default=10, metadata={"help": "Updates between measurements of accuracy."})
    reward_func: str = field(default="accuracy_reward", metadata={"help": "Judge: its name or a dotted path."})
    correct_threshold: float = field(default=CORRECT, metadata={"help": "Lowest reward of a correct response."})
    temperature: float = field(default=1.0, metadata={"help": "Sampling temperature of the responses."})
    top_p: float = field(default=1.0, metadata={"help": "Nucleus of the responses' sampling."})
    max_new_tokens: int | None = field(
        default=None,
        metadata={"help": "Longest response, in tokens; at most 1024, and what the model reads, if not given."},
    )
    batch_size: int = field(default=64, metadata={"help": "Responses sampled at once by each process."})
    vllm_gpu_memory_utilization: float | None = field(
        default=0.3, metadata={"help": "Share of each GPU's memory for vLLM, beside the training."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Delete what an earlier run left in output_dir."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("check_steps", "batch_size", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if self.target_accuracy is not None and not 0 < self.target_accuracy <= 1:
            raise ValueError(f"target_accuracy={self.target_accuracy} must be above 0, and at most 1.")
        self.check_engine_name()
        check_correct_threshold(self.correct_threshold)
        self.check_verification()
        check_wording(self.wording, self.dataset_name)
        Sampling(self.temperature, self.top_p)  # the numbers are checked there

    def without_effect(self, values: Any) -> dict[str, str]:
        """Options that have no effect beside these values of all options, with the reason and what to do."""
        reasons = super().without_effect(values) | library_options_without_effect(values)
        reasons |= verification_without_effect([self.reward_func])
        reasons |= dict.fromkeys(OF_RAW_TEXT, "the solutions are tokenized by this recipe; leave it out.")
        reasons["model_revision"] = "the model is named by base_model; write --base_model NAME@REVISION."
        if self.dataset_name in MADE:
            reason = f"dataset_name={self.dataset_name!r} is made as it is: it takes no completion_column."
            reasons["completion_column"] = reason
        if self.target_accuracy is not None:
            reasons["rl_model"] = "target_accuracy is the target; leave one of them out."
        if self.engine != VLLM:  # beside vLLM, attn_implementation is the training's
            reasons |= engine_without_effect(self.engine)
        if not values.packing:
            reasons["packing_strategy"] = "packing is off; turn it on, or leave it out."
        return reasons


@dataclass
class SftJob(FolderOwner):
    """A run ready to begin: arguments checked, models found but not loaded, solutions tokenized.

    Attributes:
        script_args, args, model_args: the recipe's, the trainer's and the model's arguments.
        base: the model to fine-tune.
        rl: the model whose accuracy is the target; None where the target is a number.
        train: rows with `input_ids` and `labels`.
        left_out: how many solutions were too long.
        held_out: the problems on which accuracy is measured.
        longest: tokens of the longest prompt of these and its response.
    """

    script_args: SftControlArguments
    args: SFTConfig
    model_args: ModelConfig
    base: ModelSource
    rl: ModelSource | None
    train: Dataset
    left_out: int
    held_out: HeldOutProblems
    longest: int

    @property
    def output_dir(self) -> Path:
        return Path(str(self.args.output_dir))

    def load(self, source: ModelSource) -> Any:
        """Load a model onto this process's device."""
        options = {"attn_implementation": self.model_args.attn_implementation}
        options = {name: value for name, value in options.items() if value is not None}
        return source.load(str(self.model_args.dtype), PartialState().device, **options)

    def dtype_of(self, source: ModelSource) -> str:
        """The dtype of a model that is not trained."""
        return weights_dtype((source,), str(self.model_args.dtype))

    def training_dtype(self, model: Any) -> str:
        """The dtype that the model in training computes in."""
        if self.args.bf16:
            return "bfloat16"
        return "float16" if self.args.fp16 else str(model.dtype).removeprefix("torch.")


def parse_sft_arguments(arguments: list[str] | None = None) -> tuple[SftControlArguments, SFTConfig, ModelConfig]:
    """Arguments from the command line, over pocket's settings where it names neither a config nor a base model.

    Raises:
        ValueError: for an unknown or senseless argument or config file, or one that would have no effect.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not {word.split("=", 1)[0] for word in words} & {"--config", "--base_model"}:
        words = [part for name, value in POCKET_SETTINGS.items() for part in (f"--{name}", str(value))] + words
    script_args, args, model_args = parse_into((SftControlArguments, ControlConfig, ModelConfig), words)
    return script_args, args, model_args


def prepare(arguments: list[str] | None = None) -> SftJob:
    """Parse, check, find the models, load and tokenize the solutions.

    Args:
        arguments: words of the command line; `sys.argv`'s when None.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    disable_progress_bar()  # the tokenization takes seconds
    script_args, args, model_args = parse_sft_arguments(arguments)
    state = PartialState()
    check_launch(state)
    meet()
    check_same_settings(settings_of(script_args, args, model_args))
    script_args.configure_verification()
    judge = load_reward(script_args.reward_func)
    _check_settings(script_args, args, model_args)
    trust = bool(args.trust_remote_code)
    base = find_model("base_model", script_args.base_model, trust_remote_code=trust)
    rl = None if script_args.target_accuracy is not None else _rl_model(script_args, base)
    with state.main_process_first():  # one process fills the caches
        solutions, problems = load_solutions(
            script_args.dataset_name,
            **script_args.splitting_options(script_args.dataset_split),
            completion_column=script_args.completion_column,
            wording=script_args.wording,
            seed=args.seed,
        )
        check_compared(problems, [script_args.reward_func])
        require_chat_template(solutions[0]["prompt"], base.tokenizer, "the base model's tokenizer")
        context = context_length(base.config)
        longest = min((size for size in (args.max_length, context) if size is not None), default=None)
        train, left_out = tokenized_solutions(solutions, base.tokenizer, model_ends(base), longest)
    if not args.packing:
        args.max_length = None  # nothing is longer any more
    longest_prompt = max(len(encode_prompt(base.tokenizer, prompt)) for prompt in problems["prompt"])
    model = f"base_model={script_args.base_model!r}"
    tokens = script_args.max_new_tokens or 1
    check_context(base.config, [longest_prompt], tokens, model=model, setting="max_new_tokens")
    left = LONGEST_RESPONSE if context is None else context - longest_prompt
    max_new_tokens = script_args.max_new_tokens or min(LONGEST_RESPONSE, left)
    sampling = Sampling(script_args.temperature, script_args.top_p, max_new_tokens, args.seed)
    held_out = HeldOutProblems(problems, judge, sampling, script_args.batch_size, script_args.correct_threshold)
    longest_text = longest_prompt + max_new_tokens
    for source in (base,) if rl is None else (base, rl):
        check_engine(script_args, str(model_args.dtype), (source,), longest_text, pair=False)
    job = SftJob(script_args, args, model_args, base, rl, train, left_out, held_out, longest_text)
    job.lock = take_folder(job.output_dir, "SFT control", f"output_dir={args.output_dir!r}")
    # Only now can no other run save a checkpoint any more.
    args.resume_from_checkpoint = checkpoint_to_resume(args, script_args.overwrite)
    return job


def _check_settings(script_args: SftControlArguments, args: SFTConfig, model_args: ModelConfig) -> None:
    """Check what needs neither a model nor data.

    Raises:
        ValueError: for whatever does not fit, or an output folder that holds another run.
    """
    check_model_setting(model_args)
    if str(getattr(args.eval_strategy, "value", args.eval_strategy)) != "no":
        raise ValueError("eval_strategy is not used here: accuracy is measured every check_steps updates.")
    remember_secrets(vars(args))
    check_config_numbers(args)
    _check_engine_beside_training(script_args, args, model_args)
    check_trackers(args.report_to)
    folder = Path(str(args.output_dir))
    check_folder(folder, "SFT control", f"output_dir={args.output_dir!r}")
    checkpoint_to_resume(args, script_args.overwrite, tell=False)
    earlier = [name for name in (MODEL_DIR, SUMMARY_FILE) if (folder / name).exists()]
    if earlier and not is_resume_wanted(args) and not script_args.overwrite:
        raise ValueError(
            f"output_dir={args.output_dir!r} holds {earlier[0]} of an earlier run; delete it by --overwrite true, or "
            "choose another --output_dir."
        )


def _fsdp_version(args: SFTConfig) -> int | None:
    """The version of FSDP by which this process trains, from its launch or its arguments; None without FSDP."""
    if str_to_bool(os.environ.get("ACCELERATE_USE_FSDP", "false")):
        return int(os.environ.get("FSDP_VERSION", "1"))  # accelerate's own default
    return args.fsdp_plugin_args["fsdp_version"] if args.fsdp_plugin_args else None


def _check_engine_beside_training(script_args: SftControlArguments, args: SFTConfig, model_args: ModelConfig) -> None:
    """Refuse trainings whose weights the engine cannot be given.

    Raises:
        ValueError: for an adapter, for FSDP's first version, for several machines, and for what
            `check_engine_arguments` refuses.
    """
    if script_args.engine != VLLM:
        return
    if model_args.use_peft:
        raise ValueError(
            "engine='vllm' cannot be with use_peft=True: it is given whole weights; train the whole model, or use "
            "engine='transformers'."
        )
    if _fsdp_version(args) == 1:
        raise ValueError(
            "engine='vllm' is given weights that FSDP2 gathers, and fsdp_version is 1: set fsdp_version: 2 in the "
            "accelerate config (--launch fsdp2), or use engine='transformers'."
        )
    processes = PartialState().num_processes
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    if processes > here:
        raise ValueError(
            f"engine='vllm' measures accuracy on one machine, and {processes - here} of the {processes} processes are "
            "on others: train on one, or use engine='transformers'."
        )
    check_engine_arguments(script_args)


def _rl_model(script_args: SftControlArguments, base: ModelSource) -> ModelSource:
    """The model whose accuracy is the target; its shift is compared with the control's afterwards."""
    try:
        rl = find_model("rl_model", script_args.rl_model, trust_remote_code=base.trust_remote_code)
    except ValueError as error:
        hint = "Train it first (`make demo` makes pocket's), or give --target_accuracy instead."
        raise ValueError(f"{error} {hint}") from error
    require_shared_vocabulary(base, rl)
    return rl


def prepare_sft_output(job: SftJob, trainer: Trainer) -> None:
    """With `overwrite`, delete from `output_dir` what an earlier run left, and nothing else; record the launch.

    Raises:
        DiskFullError: if there is too little room for the new run even then; nothing is deleted.
    """
    if job.script_args.overwrite and job.args.resume_from_checkpoint is None:
        freed = bytes_to_delete(job.output_dir, "SFT control")
        on_main_process(lambda: check_training_room(trainer, job.output_dir, freed))
        start_over(job.output_dir, "SFT control")
    on_main_process(lambda: _record_control(job))


def _record_control(job: SftJob) -> None:
    """Write the control's `config.yaml`; for the main process alone."""
    from_checkpoint = job.args.resume_from_checkpoint
    sources = {"base": job.base} | ({} if job.rl is None else {"rl": job.rl})
    record_launch(
        job.output_dir,
        (job.script_args, job.args, job.model_args),
        goes_on=is_resume_wanted(job.args) or from_checkpoint is not None,
        **({} if from_checkpoint is None else {"resumed_from": Path(str(from_checkpoint)).name}),
        models={name: {"name": source.name, "content": model_content(source)} for name, source in sources.items()},
        data={
            "name": job.script_args.dataset_name,
            "solutions": len(job.train),
            "held_out": problems_content(job.held_out.problems),
        },
    )
