"""The training recipe's own arguments, and a parser whose errors are one line."""

import difflib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from transformers import TrainingArguments
from trl import ModelConfig, ScriptArguments, TrlParser

from tokenshift.rewards.pool import LONGEST_LIMIT
from tokenshift.trainer import DivergenceGRPOConfig

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "pocket.yaml"


@dataclass
class RecipeArguments(ScriptArguments):
    """
    Arguments of `grpo_divweighted.py` beside the trainer's and the model's.

    Parameters:
        train_size (`int`, *optional*):
            Training problems; all when None.
        eval_size (`int`, *optional*, defaults to `256`):
            Held-out problems on which accuracy is measured before and after.
        prompt_column, solution_column (`str`):
            Their names in the data.
        system_prompt, prompt_template (`str`, *optional*):
            Put before each prompt, and around it (`{prompt}` marks its place).
        reward_funcs (`list[str]`):
            `accuracy_reward`, `format_reward`, `get_soft_overlong_punishment`, or dotted paths. The first one is
            measured on held-out problems.
        overlong_max_length, overlong_cache (`int`, *optional*):
            Lengths of the soft overlong punishment, in tokens.
        verify_workers (`int`), verify_timeout (`float`):
            Verification processes a rank, and seconds a verification may take.
        wandb_project, wandb_entity, wandb_group (`str`):
            Where the run is filed.
        overwrite (`bool`):
            Delete what an earlier run left in `output_dir`.
    """

    dataset_name: str = field(
        default="pocket", metadata={"help": "pocket, sums, a .json/.jsonl/.parquet/.csv file, a folder or a hub name."}
    )
    train_size: int | None = field(default=None, metadata={"help": "Training problems; all when not given."})
    eval_size: int = field(default=256, metadata={"help": "Held-out problems scored before and after training."})
    prompt_column: str = field(default="prompt", metadata={"help": "Column with the prompts."})
    solution_column: str | None = field(
        default="solution", metadata={"help": "Column with the gold answers; none if there is none."}
    )
    system_prompt: str | None = field(default=None, metadata={"help": "Put before each prompt as a system turn."})
    prompt_template: str | None = field(default=None, metadata={"help": "Text around each prompt, with {prompt}."})
    reward_funcs: list[str] = field(
        default_factory=lambda: ["accuracy_reward"],
        metadata={"help": "accuracy_reward, format_reward, get_soft_overlong_punishment, or dotted paths."},
    )
    overlong_max_length: int | None = field(
        default=None, metadata={"help": "Tokens at which the soft overlong punishment reaches -1."}
    )
    overlong_cache: int | None = field(
        default=None, metadata={"help": "Tokens before that at which the punishment begins."}
    )
    verify_workers: int = field(default=2, metadata={"help": "Verification processes a rank."})
    verify_timeout: float = field(default=10.0, metadata={"help": "Seconds a verification may take."})
    wandb_project: str = field(default="tokenshift", metadata={"help": "W&B project."})
    wandb_entity: str | None = field(default=None, metadata={"help": "W&B entity."})
    wandb_group: str | None = field(default=None, metadata={"help": "W&B group."})
    overwrite: bool = field(default=False, metadata={"help": "Delete what an earlier run left in output_dir."})

    def __post_init__(self) -> None:
        for name in ("train_size", "eval_size", "verify_workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if not 0 < self.verify_timeout <= LONGEST_LIMIT:
            raise ValueError(
                f"verify_timeout={self.verify_timeout} must be positive, at most {LONGEST_LIMIT:g} seconds."
            )
        if self.solution_column is not None and self.solution_column.lower() in ("none", "null", ""):
            self.solution_column = None
        if not self.reward_funcs:
            raise ValueError("reward_funcs is empty; name at least one, for example accuracy_reward.")


class OneLineParser(TrlParser):
    """[`~trl.TrlParser`] that names a wrong argument in one line, instead of behind hundreds of lines of usage."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


TRAINING = (RecipeArguments, DivergenceGRPOConfig, ModelConfig)
"""Whose fields are the arguments of a training."""


def parse_arguments(
    arguments: list[str] | None = None,
) -> tuple[RecipeArguments, DivergenceGRPOConfig, ModelConfig]:
    """Arguments from the command line over those of `--config`; pocket's config where neither it nor a model is named.

    Raises:
        ValueError: for an unknown or senseless argument or config file.
    """
    needs = {"--config", "--model_name_or_path"}
    script_args, training_args, model_args = parse_into(TRAINING, arguments, default=DEFAULT_CONFIG, unless=needs)
    if not model_args.model_name_or_path:
        raise ValueError("model_name_or_path is not set; give a hub name, a folder, pocket or smollm2.")
    return script_args, training_args, model_args


def parse_into(
    types: tuple[Any, ...], arguments: list[str] | None = None, *, default: Path | None = None, unless: Any = ()
) -> Any:
    """Instances of dataclasses, from the command line over `--config`.

    Args:
        types: the dataclasses.
        arguments: words of the command line; `sys.argv`'s when None.
        default: config file of a command line that has none of `unless`.
        unless: options.

    Raises:
        ValueError: for an unknown or senseless argument or config file.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    joined = next((i for i, word in enumerate(arguments) if word.startswith("--config=")), None)
    if joined is not None:
        arguments[joined : joined + 1] = arguments[joined].split("=", 1)
    if default is not None and not {word.split("=", 1)[0] for word in arguments} & set(unless):
        arguments = ["--config", str(default), *arguments]
    parser = OneLineParser(types, allow_abbrev=False)
    if not torch.accelerator.is_available():
        if any(issubclass(each, TrainingArguments) for each in types):
            # Otherwise several processes would each believe to be alone, and bf16 would be the default.
            parser.set_defaults(use_cpu=True, bf16=False)
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed, where installed, would warn of it
    known = {option.lstrip("-") for action in parser._actions for option in action.option_strings} | {"config", "env"}
    _refuse_unknown([word[2:].split("=", 1)[0] for word in arguments if word.startswith("--")], known, "--")
    if "--config" in arguments:
        place = arguments.index("--config") + 1
        _refuse_unknown(_config_keys(arguments[place] if place < len(arguments) else ""), known, "the config's ")
    return parser.parse_args_and_config(arguments)


def words_of(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of a command line; those that are None are left out."""
    found = []
    for name, value in settings.items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            found += [f"--{name}", *(str(each).lower() if isinstance(each, bool) else str(each) for each in values)]
    return found


def _config_keys(file: str) -> list[str]:
    if not Path(file).is_file():
        raise ValueError(f"--config {file!r} is not a file; recipes/configs/ holds some to start from.")
    try:
        config = yaml.safe_load(Path(file).read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {file!r} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ValueError(f"--config {file!r} must hold a mapping of arguments to values.")
    return [str(key) for key in config]


def _refuse_unknown(names: list[str], known: set[str], prefix: str) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "--help lists them."
            raise ValueError(f"{prefix}{name} is no argument; {hint}")
