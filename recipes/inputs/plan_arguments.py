"""Arguments of `--dry_run`: what a run is planned for where this machine does not say it."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class PlanArguments:
    """
    The plan of an analysis (--dry_run).

    Parameters:
        dry_run (`bool`):
            Print the plan of the analysis, its memory, tokens and files, from the models' configs, and end.
        plan_launch (`str`, *optional*), plan_processes, plan_machines (`int`, *optional*):
            The accelerate config of the planned launch, by name or path, and its numbers of processes and machines
            where they differ. `tokenshift shift --dry_run --launch ddp --num_processes 8` gives them.
        plan_gpu_gib (`float`, *optional*), plan_gpus (`int`, *optional*):
            Memory of a planned GPU, and GPUs that `device_map` spreads a model over; this machine's when not given.
        plan_prompt_tokens, plan_completion_tokens (`int`, *optional*):
            Tokens of the longest prompt (the data's, by the models' tokenizer) and of a response on average (the
            longest) in the plan.
    """

    dry_run: bool = field(default=False, metadata={"help": "Print memory, tokens and files of the run, and end."})
    plan_launch: str | None = field(default=None, metadata={"help": "Accelerate config of the planned launch."})
    plan_processes: int | None = field(default=None, metadata={"help": "Processes of the planned launch."})
    plan_machines: int | None = field(default=None, metadata={"help": "Machines of the planned launch."})
    plan_gpu_gib: float | None = field(
        default=None, metadata={"help": "Memory of a planned GPU, in GiB; this machine's if not given."}
    )
    plan_gpus: int | None = field(
        default=None, metadata={"help": "Planned GPUs that device_map spreads over; this machine's if not given."}
    )
    plan_prompt_tokens: int | None = field(
        default=None, metadata={"help": "Tokens of the longest prompt in the plan; the data's if not given."}
    )
    plan_completion_tokens: int | None = field(
        default=None, metadata={"help": "Tokens of a response on average in the plan; the longest if not given."}
    )

    def __post_init__(self) -> None:
        parent: Any = super()
        if hasattr(parent, "__post_init__"):
            parent.__post_init__()
        for name in ("plan_processes", "plan_machines", "plan_gpus", "plan_prompt_tokens", "plan_completion_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if self.plan_gpu_gib is not None and not 0 < self.plan_gpu_gib < math.inf:
            raise ValueError(f"plan_gpu_gib={self.plan_gpu_gib} must be positive.")


def plan_without_effect(args: Any) -> dict[str, str]:
    """Options of an analysis' plan that have no effect beside the others, with the reason and what to do."""
    if idle := without_plan(args):
        return idle
    if args.device_map is None:
        return {"plan_gpus": "it is of device_map, which spreads a model; give device_map, or leave it out."}
    if args.plan_gpu_gib is None:
        return {"plan_gpus": "it is beside plan_gpu_gib, the memory of each; give that too, or leave it out."}
    return {}


def without_plan(values: Any) -> dict[str, str]:
    """The options of a plan, where none is asked for, each with the reason and what to do.

    Args:
        values: The values of all options, as attributes.
    """
    if values.dry_run:
        return {}
    names = [name for name in vars(values) if name.startswith("plan_")]
    return dict.fromkeys(names, "no plan is asked for; give --dry_run, or leave it out.")
