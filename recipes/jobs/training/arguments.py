"""The arguments of the training recipe."""

import math
from dataclasses import dataclass, field
from typing import Any

from trl import ModelConfig, ScriptArguments

from tokenshift.recipes.command_line.commands import COMMANDS
from tokenshift.recipes.command_line.config_files import CONFIGS
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.recipes.inputs.problem_arguments import TrainingProblemArguments
from tokenshift.recipes.inputs.verification_arguments import VerificationArguments
from tokenshift.recipes.jobs.training.idle_options import settings_without_effect
from tokenshift.recipes.jobs.training.idle_registered import registered_without_effect
from tokenshift.trainer import DivergenceGRPOConfig

DEFAULT_CONFIG, WITHOUT = CONFIGS / COMMANDS["train"].default_config, COMMANDS["train"].default_unless
"""The config that is read where a command line has none of these options."""


@dataclass
class RecipeArguments(VerificationArguments, TrainingProblemArguments, ScriptArguments):  # type: ignore[misc]  # a dataset_name is never None
    """
    Rewards, W&B, the output folder and the plan of a training.

    Parameters:
        reward_funcs (`list[str]`):
            `accuracy_reward`, `format_reward`, `get_soft_overlong_punishment`, or dotted paths. The first one is
            measured on held-out problems.
        overlong_max_length, overlong_cache (`int`, *optional*):
            Lengths of the soft overlong punishment, in tokens.
        wandb_project, wandb_entity, wandb_group (`str`):
            The W&B project, entity and group of the run.
        overwrite (`bool`):
            Delete what an earlier run left in `output_dir`.
        dry_run (`bool`):
            Print the plan of the training, its memory, tokens and time, from the model's config alone, and end.
        plan_launch (`str`, *optional*), plan_processes, plan_machines (`int`, *optional*):
            The accelerate config of the planned launch, by name or path, and its numbers of processes and machines
            where they differ; this machine when not given. `tokenshift train --dry_run --launch zero3
            --num_processes 32` gives them.
        plan_gpu_gib (`float`), plan_tflops (`float`, *optional*), plan_utilization (`float`):
            Memory of a planned GPU, its floating-point operations (1e12 per second; 989, an H100's in bfloat16, when
            not given), and the share of them that a training makes. On CPU no time is told unless they are given.
        plan_prompt_tokens, plan_completion_tokens (`int`, *optional*):
            Tokens of the longest prompt (512, or what vLLM's length leaves) and of a completion on average (the
            longest) in the plan.
    """

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
    wandb_project: str = field(default="tokenshift", metadata={"help": "W&B project."})
    wandb_entity: str | None = field(default=None, metadata={"help": "W&B entity."})
    wandb_group: str | None = field(default=None, metadata={"help": "W&B group."})
    overwrite: bool = field(default=False, metadata={"help": "Delete what an earlier run left in output_dir."})
    dry_run: bool = field(default=False, metadata={"help": "Print memory, tokens and time of the training, and end."})
    plan_launch: str | None = field(default=None, metadata={"help": "Accelerate config of the planned launch."})
    plan_processes: int | None = field(default=None, metadata={"help": "Processes of the planned launch."})
    plan_machines: int | None = field(default=None, metadata={"help": "Machines of the planned launch."})
    plan_gpu_gib: float = field(default=80.0, metadata={"help": "Memory of a planned GPU, in GiB."})
    plan_tflops: float | None = field(
        default=None, metadata={"help": "1e12 operations per second of a planned GPU (989 if not given) or process."}
    )
    plan_utilization: float = field(default=0.4, metadata={"help": "Share of these operations that are made."})
    plan_prompt_tokens: int | None = field(
        default=None, metadata={"help": "Tokens of the longest prompt in the plan."}
    )
    plan_completion_tokens: int | None = field(
        default=None, metadata={"help": "Tokens of a completion on average in the plan; the longest if not given."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_verification()
        for name in ("plan_gpu_gib", "plan_tflops", "plan_prompt_tokens", "plan_completion_tokens"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}={value} must be positive.")
        if not 0 < self.plan_utilization <= 1:
            raise ValueError(f"plan_utilization={self.plan_utilization} must lie in (0, 1].")
        if not self.reward_funcs:
            raise ValueError("reward_funcs is empty; name at least one, for example accuracy_reward.")

    def without_effect(self, values: Any) -> dict[str, str]:
        """Options that have no effect beside these values of all options, with the reason and what to do."""
        return super().without_effect(values) | settings_without_effect(values) | registered_without_effect(values)


TRAINING = (RecipeArguments, DivergenceGRPOConfig, ModelConfig)
"""The dataclasses whose fields are the arguments of a training."""


def parse_arguments(
    arguments: list[str] | None = None,
) -> tuple[RecipeArguments, DivergenceGRPOConfig, ModelConfig]:
    """Arguments from the command line over those of `--config`; without a config or a model, those of pocket's config.

    Raises:
        ValueError: for an unknown or senseless argument or config file.
    """
    script_args, training_args, model_args = parse_into(TRAINING, arguments, default=DEFAULT_CONFIG, unless=WITHOUT)
    if not model_args.model_name_or_path:
        raise ValueError("model_name_or_path is not set; give a hub name, a folder, pocket or smollm2.")
    return script_args, training_args, model_args
