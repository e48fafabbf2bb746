"""All of the supervised control that can be looked at before a model is loaded, and how accuracy is measured."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from trl import ModelConfig, SFTConfig

from tokenshift.analysis.divergence.vocabulary import shared_vocabulary
from tokenshift.analysis.sampling.generators import Sampling
from tokenshift.analysis.sampling.token_ids import context_length, encode_prompt
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.command_line.products import MODEL_DIR, SUMMARY_FILE, checkpoint_to_resume, delete_products
from tokenshift.recipes.inputs.models import ModelSource, find_model, model_ends
from tokenshift.recipes.inputs.sampling import LONGEST
from tokenshift.recipes.jobs.sft.heldout_problems import HeldOutProblems
from tokenshift.recipes.jobs.sft.solutions import check_wording, load_solutions, tokenized_solutions
from tokenshift.rewards import configure_verification, load_reward
from tokenshift.trainer.resume.checkpoints import STAGING_DIR
from tokenshift.trainer.resume.launch_check import check_launch

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
"""Where neither a config nor a base model is named; others start from TRL's defaults."""

PRODUCTS = ("checkpoint-*", STAGING_DIR, MODEL_DIR, SUMMARY_FILE)


@dataclass
class SftControlArguments:
    """
    Arguments of `sft_control.py` beside TRL's.

    Parameters:
        base_model, rl_model (`str`):
            `pocket`, `smollm2`, a folder, a hub name or `name@revision`; whole models or PEFT adapters. The RL model's
            accuracy on the held-out problems is the target.
        target_accuracy (`float`, *optional*):
            The target instead; no RL model is needed then.
        dataset_name, dataset_config, dataset_split, dataset_test_split, train_size, eval_size:
            Solutions to learn from, and held-out problems on which accuracy is measured.
        wording (`str`):
            Of pocket's solutions: `own`, as its base words them, or `taught`, in other phrases.
        prompt_column, completion_column, solution_column, system_prompt, prompt_template:
            Of data that is not made here: problems, correct solutions, gold answers.
        check_steps (`int`):
            Updates between measurements of accuracy.
        reward_func (`str`):
            Judges responses; correct is a reward of 1.
        temperature, top_p, max_new_tokens, batch_size:
            How responses are sampled for that.
        overwrite (`bool`):
            Delete what an earlier run left in `output_dir`.
    """

    base_model: str = field(default="pocket", metadata={"help": "The model to fine-tune."})
    rl_model: str = field(default="outputs/pocket/model", metadata={"help": "Its accuracy is the target."})
    target_accuracy: float | None = field(default=None, metadata={"help": "The target, instead of an RL model's."})
    dataset_name: str = field(
        default="pocket", metadata={"help": "pocket, sums, a .json/.jsonl/.parquet/.csv file, a folder or a hub name."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of hub data."})
    dataset_split: str = field(default="train", metadata={"help": "Split to learn from."})
    dataset_test_split: str = field(
        default="test", metadata={"help": "Split of the held-out problems; where there is none, rows not learnt from."}
    )
    train_size: int | None = field(default=None, metadata={"help": "Solutions; all, or 2048 of pocket."})
    eval_size: int = field(default=256, metadata={"help": "Held-out problems on which accuracy is measured."})
    wording: str = field(default="own", metadata={"help": "Of pocket's solutions: own, as its base's, or taught."})
    prompt_column: str = field(default="prompt", metadata={"help": "Column with the prompts."})
    completion_column: str = field(default="completion", metadata={"help": "Column with the correct solutions."})
    solution_column: str | None = field(default="solution", metadata={"help": "Column with the gold answers."})
    system_prompt: str | None = field(default=None, metadata={"help": "Put before each prompt as a system turn."})
    prompt_template: str | None = field(default=None, metadata={"help": "Text around each prompt, with {prompt}."})
    check_steps: int = field(default=10, metadata={"help": "Updates between measurements of accuracy."})
    reward_func: str = field(default="accuracy_reward", metadata={"help": "Judge: its name or a dotted path."})
    temperature: float = field(default=1.0, metadata={"help": "Of the sampled responses."})
    top_p: float = field(default=1.0, metadata={"help": "Of the sampled responses."})
    max_new_tokens: int | None = field(
        default=None,
        metadata={"help": "Longest response, in tokens; at most 1024, and what the model reads, if not given."},
    )
    batch_size: int = field(default=64, metadata={"help": "Responses sampled at once by each process."})
    verify_workers: int = field(default=2, metadata={"help": "Verification processes of each process."})
    verify_timeout: float = field(default=10.0, metadata={"help": "Seconds a verification may take."})
    overwrite: bool = field(default=False, metadata={"help": "Delete what an earlier run left in output_dir."})

    def __post_init__(self) -> None:
        for name in ("train_size", "eval_size", "check_steps", "batch_size", "verify_workers", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if self.target_accuracy is not None and not 0 < self.target_accuracy <= 1:
            raise ValueError(f"target_accuracy={self.target_accuracy} must be above 0, and at most 1.")
        if self.solution_column is not None and self.solution_column.lower() in ("none", "null", ""):
            self.solution_column = None
        check_wording(self.wording, self.dataset_name)
        Sampling(self.temperature, self.top_p)  # the numbers are checked there


@dataclass
class SftJob:
    """A run ready to begin: arguments checked, models found but not loaded, solutions tokenized.

    Attributes:
        ours, args, model_args: of the command line.
        base: the model to fine-tune.
        rl: the model whose accuracy is the target, if one is.
        train: `input_ids` and `labels`.
        left_out: solutions that were too long.
        exam: measures accuracy.
    """

    ours: SftControlArguments
    args: SFTConfig
    model_args: ModelConfig
    base: ModelSource
    rl: ModelSource | None
    train: Dataset
    left_out: int
    exam: HeldOutProblems

    @property
    def output_dir(self) -> Path:
        return Path(str(self.args.output_dir))

    def load(self, source: ModelSource) -> Any:
        """A model on this process's device."""
        options = {"attn_implementation": self.model_args.attn_implementation}
        options = {name: value for name, value in options.items() if value is not None}
        return source.load(str(self.model_args.dtype), PartialState().device, **options)


def prepare(arguments: list[str] | None = None) -> SftJob:
    """Parse, check, find the models, load and tokenize the solutions.

    Args:
        arguments: words of the command line; `sys.argv`'s when None.

    Raises:
        ValueError: for whatever is wrong, in one line.
    """
    disable_progress_bar()  # of a tokenization in seconds
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not {word.split("=", 1)[0] for word in words} & {"--config", "--base_model"}:
        words = [part for name, value in POCKET_SETTINGS.items() for part in (f"--{name}", str(value))] + words
    ours, args, model_args = parse_into((SftControlArguments, SFTConfig, ModelConfig), words)
    state = PartialState()
    check_launch(state)
    configure_verification(ours.verify_workers, ours.verify_timeout)
    judge = load_reward(ours.reward_func)
    _check_settings(ours, args, model_args)
    base = find_model("base_model", ours.base_model)
    rl = None if ours.target_accuracy is not None else _rl_model(ours, base)
    with state.main_process_first():  # one process fills the caches
        solutions, held_out = load_solutions(
            ours.dataset_name,
            config=ours.dataset_config,
            train_split=ours.dataset_split,
            test_split=ours.dataset_test_split,
            train_size=ours.train_size,
            eval_size=ours.eval_size,
            prompt_column=ours.prompt_column,
            completion_column=ours.completion_column,
            solution_column=ours.solution_column,
            system_prompt=ours.system_prompt,
            prompt_template=ours.prompt_template,
            wording=ours.wording,
            seed=args.seed,
        )
        if not isinstance(solutions[0]["prompt"], str) and base.tokenizer.chat_template is None:
            raise ValueError("The prompts are conversations, but the base model's tokenizer has no chat template.")
        context = context_length(base.config)
        longest = min((size for size in (args.max_length, context) if size is not None), default=None)
        train, left_out = tokenized_solutions(solutions, base.tokenizer, model_ends(base), longest)
    if not args.packing:
        args.max_length = None  # nothing is longer any more
    longest_prompt = max(len(encode_prompt(base.tokenizer, prompt)) for prompt in held_out["prompt"])
    left = LONGEST if context is None else context - longest_prompt
    if left < (ours.max_new_tokens or 1):
        raise ValueError(
            f"A held-out prompt has {longest_prompt} tokens, which leaves {left} of the {context} that the model "
            "reads; lower max_new_tokens, or leave such prompts out."
        )
    sampling = Sampling(ours.temperature, ours.top_p, ours.max_new_tokens or min(LONGEST, left), args.seed)
    exam = HeldOutProblems(held_out, judge, sampling, ours.batch_size)
    return SftJob(ours, args, model_args, base, rl, train, left_out, exam)


def _check_settings(ours: SftControlArguments, args: SFTConfig, model_args: ModelConfig) -> None:
    """What needs neither model nor data.

    Raises:
        ValueError: for whatever does not fit, or an output folder in use.
    """
    if model_args.model_name_or_path is not None:
        raise ValueError("model_name_or_path is not used here; name the model by --base_model.")
    if str(getattr(args.eval_strategy, "value", args.eval_strategy)) != "no":
        raise ValueError("eval_strategy is not used here: accuracy is measured every check_steps updates.")
    folder = Path(str(args.output_dir))
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir={args.output_dir!r} is a file.")
    asked: Any = args  # it reads what both trainers' configs have
    resuming = str(args.resume_from_checkpoint or "false").lower() not in ("false", "0", "no", "none")
    args.resume_from_checkpoint = checkpoint_to_resume(asked, ours.overwrite)
    earlier = [name for name in (MODEL_DIR, SUMMARY_FILE) if (folder / name).exists()]
    if earlier and not resuming and not ours.overwrite:
        raise ValueError(
            f"output_dir={args.output_dir!r} holds {earlier[0]} of an earlier run; delete it by --overwrite true, or "
            "choose another --output_dir."
        )


def _rl_model(ours: SftControlArguments, base: ModelSource) -> ModelSource:
    try:
        found = find_model("rl_model", ours.rl_model)
    except ValueError as error:
        hint = "Train it first (`make demo` makes pocket's), or give --target_accuracy instead."
        raise ValueError(f"{error} {hint}") from error
    try:
        shared_vocabulary(base.tokenizer, found.tokenizer)
    except ValueError as error:  # accuracies could be compared, but not the shifts afterwards
        raise ValueError(f"base_model={ours.base_model!r} and rl_model={ours.rl_model!r}: {error}") from error
    return found


def prepare_output(job: SftJob) -> None:
    """Make `output_dir`; with `overwrite`, delete from it what an earlier run left, and nothing else."""
    if PartialState().is_main_process:
        job.output_dir.mkdir(parents=True, exist_ok=True)
        if job.ours.overwrite and job.args.resume_from_checkpoint is None:
            delete_products(job.output_dir, PRODUCTS)
    PartialState().wait_for_everyone()
