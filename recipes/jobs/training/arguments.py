"""The training recipe's own arguments, and a parser whose errors are one line."""

from dataclasses import dataclass, field
from pathlib import Path

from trl import ModelConfig, ScriptArguments

from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.rewards.pool import LONGEST_LIMIT
from tokenshift.trainer import DivergenceGRPOConfig

DEFAULT_CONFIG = Path(__file__).parents[2] / "configs" / "pocket.yaml"


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
