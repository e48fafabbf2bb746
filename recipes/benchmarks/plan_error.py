"""The memory that a plan tells, against the largest resident memory of the run that it is for, on a CPU.

Each run is a process of its own: what it had when the imports were done is taken off its peak. Of trainings,
completions are random and of full length, so that lengths are those of the plan; no phase of sampling is measured or
planned. An analysis samples, at a temperature at which few responses end before their limit, and is measured whole.

    python -m tokenshift.recipes.benchmarks.plan_error                  # all settings of SmolLM2, three runs each
    python -m tokenshift.recipes.benchmarks.plan_error --model pocket --runs 1
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from tokenshift.analysis.plan.parts import MemoryPlan, peak
from tokenshift.recipes.command_line.commands import COMMANDS

MIB = 2**20
ALLOWED = 0.15
"""Share of the measured peak by which a plan may be off."""

SETTINGS: dict[str, dict[str, Any]] = {
    "k3, 2 x 64 tokens": {"rows": 2, "length": 64},
    "js against base, 2 x 128 tokens": {
        "rows": 2,
        "length": 128,
        "divergence": "js",
        "divergence_reference": "base",
    },
    "k3, 4 x 128 tokens, checkpointing": {"rows": 4, "length": 128, "gradient_checkpointing": True},
}
"""Settings of trainings by name: completions of a micro-batch, their tokens, and fields of the config."""

ANALYSES: dict[str, tuple[str, list[str]]] = {
    "shift, 64 x 64 tokens, 8,192 tokens at once": (
        "shift",
        [
            *("--size", "16", "--samples", "4", "--max_new_tokens", "64", "--temperature", "2", "--top_p", "0.95"),
            *("--batch_size", "32", "--batch_tokens", "8192", "--report_responses", "0", "--resamples", "20"),
        ],
    ),
    "cross, 16 x 64 tokens, js, both directions": (
        "cross",
        [
            *("--size", "16", "--max_new_tokens", "64", "--temperature", "50", "--top_p", "0.95"),
            *("--batch_size", "16", "--criteria", "js", "--epsilons", "0.1", "--resamples", "20"),
        ],
    ),
    "cross, 8 x 160 tokens, truncated js, both directions": (
        "cross",
        [
            *("--size", "8", "--max_new_tokens", "160", "--temperature", "50", "--top_p", "0.95"),
            *("--batch_size", "8", "--criteria", "js_top_p", "--epsilons", "0.1", "--resamples", "20"),
        ],
    ),
}
"""Settings of analyses by name: the command, and its arguments beside models and data."""


@dataclass(frozen=True)
class Measured:
    """The memory and the tokens that a run took.

    Attributes:
        peak: bytes of its largest resident memory beyond those after the imports.
        prompt: tokens of a training's longest prompt; 0 of an analysis, whose plan reads them itself.
    """

    peak: int
    prompt: int = 0


def measure(model: str, name: str) -> Measured:
    """Run a setting in this process."""
    return measure_analysis(model, name) if name in ANALYSES else measure_training(model, name)


def analysis_words(model: str, name: str) -> list[str]:
    """The arguments of a model's analysis beside itself."""
    data = "pocket" if model == "pocket" else "sums"
    return ["--base_model", model, "--rl_model", model, "--dataset_name", data, *ANALYSES[name][1]]


def measure_analysis(model: str, name: str) -> Measured:
    """Analyze a model beside itself."""
    command = ANALYSES[name][0]
    recipe: Any = import_module(COMMANDS[command].module)
    before = _resident()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        if status := recipe.main([*analysis_words(model, name), "--output_dir", str(Path(folder) / command)]):
            sys.exit(status)
    return Measured(_largest() - before)


def measure_training(model: str, name: str) -> Measured:
    """Train: two updates on one generation."""
    from transformers import AutoTokenizer

    from tokenshift.recipes.benchmarks import training_cost

    setting = dict(SETTINGS[name])
    known = training_cost.known(model)
    tokenizer = AutoTokenizer.from_pretrained(known.path)
    before = _resident()
    rows, length = setting.pop("rows"), setting.pop("length")
    more = {"gradient_checkpointing": False, "steps_per_generation": 2, "num_generations": rows, "bf16": False}
    ids = min(len(tokenizer), 10_000)
    made = training_cost.Trained(
        known.path, known.problems, rows, length, ids, {**more, **setting, "max_steps": 2}, 1.0
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = training_cost.build(made, Path(folder), {}, stock=False)
        prompts = [trainer.processing_class(row).input_ids for row in known.problems["prompt"]]
    return Measured(_largest() - before, max(map(len, prompts)))


def _largest() -> int:
    """The largest resident memory that this process had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux


def _resident() -> int:
    """Resident memory of this process now, in bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def planned(model: str, name: str, prompt: int) -> dict[str, int]:
    """Bytes of each part in the phase that takes the most; what `--dry_run` plans by."""
    if name in ANALYSES:
        recipe: Any = import_module(COMMANDS[ANALYSES[name][0]].module)
        plan: MemoryPlan = recipe.prepare(["--dry_run", *analysis_words(model, name)]).plan
        return plan.largest_parts()
    return planned_training(model, name, prompt)


def planned_training(model: str, name: str, prompt: int) -> dict[str, int]:
    """The same of a training, sampling left out."""
    import torch
    from transformers import AutoConfig

    from tokenshift.recipes.inputs.models import resolve_model
    from tokenshift.trainer import DivergenceGRPOConfig
    from tokenshift.trainer.plan.launch import Launch
    from tokenshift.trainer.plan.memory import PHASES, SAMPLING, Lengths, training_memory
    from tokenshift.trainer.plan.model_shape import model_shape

    setting = {"gradient_checkpointing": False, **SETTINGS[name]}
    rows, length = setting.pop("rows"), setting.pop("length")
    batch = {"per_device_train_batch_size": rows, "num_generations": rows, "steps_per_generation": 2}
    args = DivergenceGRPOConfig(
        use_cpu=True, bf16=False, report_to=[], max_completion_length=length, **batch, **setting
    )
    shape = model_shape(AutoConfig.from_pretrained(resolve_model(model)), torch.float32)
    parts = training_memory(shape, args, Launch(on_cpu=True), Lengths(prompt, length, length), peft=False)
    phase = max((phase for phase in PHASES if phase != SAMPLING), key=lambda phase: peak(parts, phase))
    return {part.name: part.size for part in parts if part.bytes_in(phase)}


def main(words: list[str] | None = None) -> int:
    """Print a table; exit status 1 where a plan is further off than `ALLOWED`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", default="smollm2", help="pocket or smollm2.")
    parser.add_argument("--runs", type=int, default=3, help="Runs of a setting, of which the median counts.")
    known = [*SETTINGS, *ANALYSES]
    parser.add_argument("--settings", nargs="*", default=known, choices=known)
    parser.add_argument("--measure", choices=known, help="Measure one setting in this process.")
    given = parser.parse_args(words)
    if given.measure:
        found = measure(given.model, given.measure)
        print(json.dumps({"peak": found.peak, "prompt": found.prompt}))
        return 0
    worst = 0.0
    print("| setting | planned, MiB | measured, MiB (median of runs) | error |\n|---|---|---|---|", flush=True)
    for name in given.settings:
        command = [sys.executable, "-m", "tokenshift.recipes.benchmarks.plan_error", "--model", given.model]
        runs = []
        for _ in range(given.runs):
            done = subprocess.run([*command, "--measure", name], capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr[-2000:])
            runs.append(json.loads(done.stdout.splitlines()[-1]))
        measured = median(run["peak"] for run in runs)
        parts = planned(given.model, name, runs[0]["prompt"])
        error = sum(parts.values()) / measured - 1
        worst = max(worst, abs(error))
        print(
            f"| {name} | {sum(parts.values()) / MIB:.0f} | {measured / MIB:.0f} | {100 * error:+.1f} % |", flush=True
        )
        print("  " + ", ".join(f"{part} {size / MIB:.0f}" for part, size in parts.items()), file=sys.stderr)
    return int(worst > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
