"""The plan of a reproduction as lines: its commands, what they need, and what they take."""

from collections import Counter

from tokenshift.recipes.command_line.console import duration
from tokenshift.recipes.jobs.reproduction.arguments import ReproduceJob
from tokenshift.recipes.jobs.reproduction.parts import TRAININGS, cell_folder


def plan_lines(job: ReproduceJob) -> list[str]:
    """The lines of `--dry_run`."""
    scale, seeds = job.scale, " ".join(map(str, job.seeds))
    arms = list(scale.comparison["variants"])
    lines = [f"{len(arms)} arms by RL ({', '.join(arms)}) and an SFT control, seeds {seeds}; {job.folder}"]
    if scale.gpus:
        lines.append(f"Needs {scale.gpus} GPUs of 80 GB.")
    lines += [f"Needs {need}" for need in scale.needs]
    for part in job.parts:
        lines += ["", f"# {part.name}", part.shown_command()]
        if part.kind == TRAININGS:
            lines += _cells(job)
    counts = Counter(part.kind for part in job.parts)
    cells = len(arms) * len(job.seeds)
    minutes = {kind: scale.minutes[kind] * (cells if kind == TRAININGS else counts[kind]) for kind in scale.minutes}
    if minutes:
        each = ", ".join(
            f"{kind} {cells if kind == TRAININGS else counts[kind]} x {scale.minutes[kind]:g} min" for kind in minutes
        )
        total = duration(60 * sum(minutes.values()) / job.parallel)
        lines += ["", f"Estimate ({scale.minutes_from}): {each}; {job.parallel} at once: {total}."]
    return lines


def _cells(job: ReproduceJob) -> list[str]:
    """The command of a training, where each needs a launcher."""
    launch = job.scale.comparison.get("launch")
    if not launch:
        return []
    processes = launch.get("num_processes", job.scale.gpus)
    return [
        f"#   accelerate launch --config_file accelerate_configs/{launch['config_file']}.yaml --num_processes "
        f"{processes} recipes/grpo_divweighted.py --config {cell_folder(job.folder, arm, seed) / 'training.yaml'}"
        for seed in job.seeds
        for arm in job.scale.comparison["variants"]
    ]
