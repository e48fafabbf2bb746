"""An estimate of how long a comparison takes, measured by a very short training of its baseline."""

import math
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tokenshift.analysis.storage.json_files import read_json
from tokenshift.recipes.command_line.child_processes import Children, shares, sigterm_interrupts
from tokenshift.recipes.command_line.products import SUMMARY_FILE
from tokenshift.recipes.jobs.comparison.cells import SCRIPTS, TRAINING_CONFIG_FILE, Scripts, launcher
from tokenshift.recipes.jobs.comparison.file import Comparison
from tokenshift.recipes.jobs.comparison.variants import write_effective

GENERATIONS = 2
"""The number of generations of the short training."""

HELD_OUT = 8
"""The number of held-out problems of the short training."""


@dataclass(frozen=True)
class Cost:
    """The cost of a training of the baseline.

    Attributes:
        step: Seconds per update, sampling included.
        start: Seconds of everything else: starting, scoring a few problems, saving.
        updates: The number of updates of a whole training.
        measured: The number of updates on which `step` was measured.
    """

    step: float
    start: float
    updates: int
    measured: int

    @property
    def cell(self) -> float:
        """Seconds of a whole training."""
        return self.start + self.updates * self.step


def measured_cost(comparison: Comparison, scripts: Scripts = SCRIPTS) -> Cost:
    """Train the baseline for two generations in a temporary folder, with a cell's share of the machine.

    Args:
        comparison: The comparison.
        scripts: The script that is launched for each step.

    Raises:
        ValueError: if that training fails, with the last line it said.
    """
    variant = comparison.variants[comparison.baseline]
    per_generation = max(1, math.ceil(variant.args.updates_per_generation))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        short = {
            **variant.training,
            "seed": comparison.seeds[0],
            "output_dir": str(folder),
            "max_steps": GENERATIONS * per_generation,
            "eval_size": HELD_OUT,
            "probe_steps": None,
            "save_strategy": "no",
            "eval_strategy": "no",
            "report_to": "none",
            "push_to_hub": False,
        }
        write_effective(short, folder / TRAINING_CONFIG_FILE)
        started, log, children = time.monotonic(), folder / "log.txt", Children()
        command = [*launcher(comparison.launch), *scripts["training"], "--config", str(folder / TRAINING_CONFIG_FILE)]
        try:
            with sigterm_interrupts():
                status = children.run(command, folder, log, shares(comparison.parallel)[0])
        except BaseException:
            children.kill()
            raise
        seconds, output = time.monotonic() - started, log.read_text(encoding="utf-8", errors="replace")
        if status:
            last = (output.strip().splitlines() or ["it said nothing"])[-1]
            raise ValueError(f"The short training of {variant.name} failed: {last}")
        summary = read_json(folder / SUMMARY_FILE, dict)
    training = float(summary["train_seconds"])
    updates = int(summary["updates"])
    return Cost(training / updates, seconds - training, _updates(comparison, output), updates)


def _updates(comparison: Comparison, output: str) -> int:
    """The updates of a whole training: `max_steps`, or those of its epochs over all problems.

    The number of problems is read from the output of the short training.
    """
    args = comparison.variants[comparison.baseline].args
    if args.max_steps > 0:
        return args.max_steps
    planned = re.search(r"([\d,]+) training and", output)
    problems = int(planned[1].replace(",", "")) if planned else 0
    completions = problems * (args.num_generations or 1) * args.num_iterations
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * comparison.launch.num_processes
    return math.ceil(args.num_train_epochs * completions / batch)
