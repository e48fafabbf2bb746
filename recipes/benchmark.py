"""What tokenshift costs, in one table: `token_statistics` against projections and TRL, scoring against forward passes,
training against stock GRPO, cross-sampling against plain decoding.

    python recipes/benchmark.py                                # all but cross_sampling, on pocket
    python recipes/benchmark.py --parts training --model smollm2 --trainings "js against base"
    python recipes/benchmark.py --parts statistics --tokens 512
    python recipes/benchmark.py --parts scoring --model smollm2
    python recipes/benchmark.py --parts cross_sampling --rl_model outputs/pocket/model --epsilon 0.005

All that is compared runs in turn in every round; figures are medians of the rounds' ratios, with quartiles. Shapes
are SmolLM2-135M's on CPU and a 7 B model's on an accelerator. Nothing else should run on the machine.
"""

import argparse
import platform
import re
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from tokenshift.recipes.benchmarks import cross_cost, scoring_cost, statistics_cost, statistics_error, training_cost
from tokenshift.recipes.benchmarks.timing import ratio, seconds, timed

PARTS = ["statistics", "errors", "scoring", "cross_sampling", "training"]
ALWAYS = [part for part in PARTS if part != "cross_sampling"]
"""Parts for which no model must have been trained."""
AIMS = {
    "cpu": {
        statistics_cost.JS: "at most 1.25",
        statistics_cost.TRL: "at least 2.2",
        statistics_cost.ALL: "at most 2.5",
        "memory": "at most 0.05",
    },
    "cuda": {
        statistics_cost.JS: "at most 1.20",
        statistics_cost.TRL: "at least 1.7",
        statistics_cost.ALL: "at most 1.8",
        "memory": "at most 1024 MiB",
    },
}
TRAINING_AIMS = {"js against base": "at most 1.10", "none, probe off": "at most 1.01"}


def machine() -> str:
    """Processor, or accelerator, and versions."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file() and (found := re.search(r"model name\s*: (.+)", info.read_text())):
        name = found[1]
    if torch.cuda.is_available():
        name = f"{torch.cuda.get_device_name()} beside {name}"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def add_statistics(table: Table, shapes: statistics_cost.Shapes, rounds: int) -> None:
    """Rows for `token_statistics`."""
    aims = AIMS["cuda" if shapes.device.startswith("cuda") else "cpu"]
    functions = statistics_cost.functions(shapes)
    times = timed(functions, rounds, "token_statistics")
    for name in (statistics_cost.JS, statistics_cost.ALL):
        found = ratio(times, name, statistics_cost.PROJECTIONS)
        table.add_row(name, statistics_cost.PROJECTIONS, str(found), aims[name])
    faster = ratio(times, statistics_cost.JS, statistics_cost.TRL).inverse()
    table.add_row(f"{statistics_cost.JS}, times faster", statistics_cost.TRL, str(faster), aims[statistics_cost.TRL])
    for name in (statistics_cost.JS, statistics_cost.ALL):
        peak = statistics_cost.peak_bytes(functions[name], shapes.device)
        shown = f"{peak / shapes.full_logits:.3f} ({peak / 2**20:.0f} MiB)"
        table.add_row(f"{name}, peak memory of tensors", "both models' full logits", shown, aims["memory"])


def add_scoring(table: Table, model: str, tokens: int, rounds: int) -> str:
    """Rows for scoring trajectories; its shape in words."""
    functions, long, words = scoring_cost.functions(model, tokens)
    times = timed(functions, rounds, "scoring")
    rate = ratio(times, scoring_cost.SCORING, scoring_cost.FORWARDS).inverse()
    table.add_row(f"{scoring_cost.SCORING}, rate", scoring_cost.FORWARDS, str(rate), "at least 0.85")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ours, plain = (
        statistics_cost.peak_bytes(long[name], device) for name in (scoring_cost.SCORING, scoring_cost.FORWARDS)
    )
    shown = f"{ours / plain:.3g} ({ours / 2**20:.0f} of {plain / 2**20:.0f} MiB)"
    table.add_row(f"{scoring_cost.SCORING}, peak memory of tensors", scoring_cost.FORWARDS, shown, "")
    return words


def add_cross_sampling(table: Table, model: str, rl_model: str, epsilon: float, rounds: int) -> str:
    """Rows for cross-sampling; its shape in words."""
    cost = cross_cost.cross_cost(model, rl_model, epsilon)
    obvious = cost.functions.pop(cross_cost.OBVIOUS)  # once: it takes minutes
    times = timed(cost.functions, rounds, "cross-sampling", warm=True)
    faster = ratio(times, cross_cost.LOCKSTEP, cross_cost.DRAFT)
    table.add_row(f"{cross_cost.DRAFT}, times faster", cross_cost.LOCKSTEP, str(faster), "at least 1.6")
    slower = ratio(times, cross_cost.DRAFT, cross_cost.PLAIN)
    table.add_row(f"{cross_cost.DRAFT}, time", cross_cost.PLAIN, str(slower), "at most 1.35")
    table.add_row(f"{cross_cost.DRAFT}, time a token", cross_cost.PLAIN, str(slower.scaled(1 / cost.longer)), "")
    once = {cross_cost.OBVIOUS: [seconds(obvious)], cross_cost.DRAFT: [seconds(cost.functions[cross_cost.DRAFT])]}
    factor = ratio(once, cross_cost.OBVIOUS, cross_cost.DRAFT)
    table.add_row(f"{cross_cost.DRAFT}, times faster", cross_cost.OBVIOUS, str(factor), "")
    return f"{cost.words}; {cost.unequal} responses differ between the engines"


def error_table(shapes: statistics_cost.Shapes) -> Table:
    """Largest errors of `token_statistics` against float64, by dtype of its inputs."""
    found = statistics_error.errors(shapes)
    table = Table(title=f"largest absolute / relative error, 128 tokens, {shapes}", title_justify="left")
    table.add_column("output")
    for dtype in found:
        table.add_column(dtype)
    for name in next(iter(found.values())):
        table.add_row(name, *("{:.1e} / {:.1e}".format(*values[name]) for values in found.values()))
    return table


def add_training(table: Table, model: str, names: list[str], rounds: int) -> str:
    """Rows for training; its shape in words."""
    with tempfile.TemporaryDirectory() as folder:
        cycles, words = training_cost.functions(model, Path(folder), names)
        times = timed(cycles, rounds, "training")
    for name in names:
        against = training_cost.OURS[name][0]
        found = ratio(times, name, against)
        table.add_row(f"training: {name}", against, str(found), TRAINING_AIMS.get(name, ""))
    return words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shapes = statistics_cost.default_shapes()
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=ALWAYS)
    parser.add_argument(
        "--model", choices=sorted(training_cost.BATCH), default="pocket", help="of all parts but statistics and errors"
    )
    parser.add_argument("--rl_model", default="outputs/pocket/model", help="of cross-sampling")
    parser.add_argument("--epsilon", type=float, default=0.005, help="of cross-sampling, JS in nats")
    parser.add_argument("--trainings", nargs="+", choices=list(training_cost.OURS), default=list(training_cost.OURS))
    parser.add_argument("--rounds", type=int, default=9)
    for name in ("tokens", "hidden", "vocabulary"):
        parser.add_argument(f"--{name}", type=int, default=getattr(shapes, name))
    parser.add_argument("--dtype", default=shapes.dtype, choices=("float32", "bfloat16", "float16"))
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error(f"--rounds {args.rounds} must be at least 1")
    warnings.filterwarnings("ignore", category=FutureWarning)  # from libraries to libraries
    disable_progress_bar()
    table = Table(title_justify="left")
    for column in ("what", "against", "ratio (quartiles)", "aim"):
        table.add_column(column)
    lines = [machine(), f"{args.rounds} rounds"]
    chosen = replace(shapes, **{name: getattr(args, name) for name in ("tokens", "hidden", "vocabulary", "dtype")})
    if "statistics" in args.parts:
        add_statistics(table, chosen, args.rounds)
        lines.append(f"token_statistics: {chosen}")
    if "scoring" in args.parts:
        lines.append(f"scoring: {add_scoring(table, args.model, args.tokens, args.rounds)}")
    if "cross_sampling" in args.parts:
        words = add_cross_sampling(table, args.model, args.rl_model, args.epsilon, args.rounds)
        lines.append(f"cross-sampling: {words}")
    if "training" in args.parts:
        lines.append(f"training: {add_training(table, args.model, args.trainings, args.rounds)}")
    table.title = "\n".join(lines)
    if table.row_count:
        Console().print(table)
    if "errors" in args.parts:
        Console().print(error_table(chosen))


if __name__ == "__main__":
    main()
