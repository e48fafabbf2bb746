"""The launch that a plan is for: an accelerate config, and numbers of processes and machines in place of its own."""

from tokenshift.recipes.command_line.config_files import launch_config
from tokenshift.trainer.plan.launch import Launch, read_launch


def planned_launch(launch: str | None, processes: int | None = None, machines: int | None = None) -> Launch | None:
    """The launch of `--plan_launch`, `--plan_processes` and `--plan_machines`; None without the first.

    Args:
        launch: name or path of an accelerate config.
        processes, machines: in place of the config's.

    Raises:
        ValueError: if there is no such config, or processes or machines are given without one.
    """
    for name, number in (("processes", processes), ("machines", machines)):
        if number is not None and launch is None:
            raise ValueError(f"plan_{name} needs plan_launch, an accelerate config, for example --plan_launch zero3.")
        if number is not None and number < 1:
            raise ValueError(f"plan_{name}='{number}' must be a whole number of at least 1.")
    if launch is None:
        return None
    return read_launch(launch_config(launch), processes=processes, machines=machines)
