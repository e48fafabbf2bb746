"""The words of a command line that asks for the plan of a run alone (`--dry_run`)."""

from tokenshift.recipes.command_line.truth_words import YES

PLAN_OPTIONS = (
    *("dry_run", "plan_launch", "plan_processes", "plan_machines", "plan_gpu_gib", "plan_gpus", "plan_tflops"),
    *("plan_utilization", "plan_prompt_tokens", "plan_completion_tokens"),
)
"""Names of the options of plans, which say nothing of a run."""

PLANNED_COMMANDS = ("train", "shift", "evolution", "robustness", "cross", "evaluate")
"""Commands whose launch is only planned beside `--dry_run`."""

PLANNED = {"--launch": "--plan_launch", "--num_processes": "--plan_processes", "--num_machines": "--plan_machines"}
"""Options of a launch -> those of its plan."""


def is_dry_run(words: list[str]) -> bool:
    """Whether a command line asks for the plan alone."""
    for index, word in enumerate(words):
        option, joined, value = word.partition("=")
        if option in ("--dry_run", "--dry-run"):
            following = words[index + 1] if index + 1 < len(words) else "--"
            said = value if joined else YES[0] if following.startswith("--") else following
            return said.lower() in YES
    return False


def with_planned_launch(command: str, words: list[str]) -> list[str]:
    """The words of a command with the launcher's options as the plan's, where the launch is only planned."""
    if command not in PLANNED_COMMANDS or not is_dry_run(words):
        return words
    parts = (word.partition("=") for word in words)
    return ["".join((PLANNED.get(option, option), *value)) for option, *value in parts]
