"""Measure what tokenshift costs, in one table: `token_statistics` against projections and TRL, scoring against forward
passes, training against stock GRPO, cross-sampling against plain decoding, a sweep against its policies one by one,
`--help` and wrong arguments against a bare Python, the accuracy reward against math-verify.

    python recipes/benchmark.py                                # statistics, errors, scoring, training, on pocket
    python recipes/benchmark.py --parts training --model smollm2 --trainings "js against base"
    python recipes/benchmark.py --parts statistics --tokens 512
    python recipes/benchmark.py --parts scoring --model smollm2
    python recipes/benchmark.py --parts cross_sampling --rl_model outputs/pocket/model --epsilon 0.005
    python recipes/benchmark.py --parts sweep --rl_model outputs/pocket/model          # once: it takes minutes
    python recipes/benchmark.py --parts startup --rounds 5
    python recipes/benchmark.py --parts verification
    python recipes/benchmark.py --parts pair_engine --model smollm2 --rounds 3      # with vLLM

All that is compared runs in turn in every round; figures are medians of the rounds' ratios, with quartiles. Shapes
are SmolLM2-135M's on CPU and a 7 B model's on an accelerator. Nothing else should run on the machine.
"""

from tokenshift.recipes.command_line.start import start_script

if __name__ == "__main__":
    start_script(__file__)  # answers --help and wrong arguments before the imports below, which take seconds

import platform
import re
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from tokenshift.recipes.benchmarks import (
    cross_cost,
    pair_engine_cost,
    scoring_cost,
    startup_cost,
    statistics_cost,
    statistics_error,
    sweep_cost,
    training_cost,
    verification_cost,
)
from tokenshift.recipes.benchmarks.early import MODELS, check_known, parts_without_effect
from tokenshift.recipes.benchmarks.timing import ratio, seconds, timed
from tokenshift.recipes.command_line.entry import run_guarded
from tokenshift.recipes.command_line.parser import parse_into
from tokenshift.rewards.pool import VerificationPool

BENCHMARK_PARTS = [
    *("statistics", "errors", "scoring", "cross_sampling", "sweep", "training", "startup", "verification"),
    "pair_engine",
]
UNASKED = ("cross_sampling", "sweep", "startup", "verification", "pair_engine")
DEFAULT_PARTS = [part for part in BENCHMARK_PARTS if part not in UNASKED]
"""Parts that run when none is named: no model must have been trained, and nothing but the models' work is timed."""
AIMS = {
    "cpu": {
        statistics_cost.JS: "at most 1.10",
        statistics_cost.TRL: "at least 2.2",
        statistics_cost.ALL: "at most 2.0",
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


OPTIONS_OF_PARTS = {
    ("model",): ("scoring", "cross_sampling", "sweep", "training", "pair_engine"),
    ("rl_model",): ("cross_sampling", "sweep"),
    ("epsilon",): ("cross_sampling",),
    ("trainings",): ("training",),
    ("tokens",): ("statistics", "errors", "scoring"),
    ("hidden", "vocabulary", "dtype"): ("statistics", "errors"),
    ("rounds",): tuple(part for part in BENCHMARK_PARTS if part not in ("errors", "sweep")),
}
"""Options that only some parts take -> these parts."""


@dataclass
class BenchmarkArguments:
    """
    Parameters:
        parts (`list[str]`):
            The parts that are measured.
        model (`str`):
            The model of all parts but statistics and errors.
        rl_model (`str`), epsilon (`float`):
            The second model of cross-sampling and of a sweep, and the threshold of cross-sampling.
        trainings (`list[str]`, *optional*):
            Ways of training that are timed.
        rounds (`int`):
            How often all is timed in turn.
        tokens, hidden, vocabulary (`int`, *optional*), dtype (`str`, *optional*):
            Shapes of statistics; SmolLM2-135M's on CPU and a 7 B model's on an accelerator when not given.
    """

    parts: list[str] = field(
        default_factory=lambda: list(DEFAULT_PARTS),
        metadata={"help": f"Parts that are measured: {', '.join(BENCHMARK_PARTS)}."},
    )
    model: str = field(
        default="pocket", metadata={"help": "Model of all parts but statistics and errors: pocket or smollm2."}
    )
    rl_model: str = field(
        default="outputs/pocket/model", metadata={"help": "Second model of cross-sampling and of a sweep."}
    )
    epsilon: float = field(default=0.005, metadata={"help": "Threshold of cross-sampling, JS in nats."})
    trainings: list[str] | None = field(default=None, metadata={"help": "Ways of training; all when not given."})
    rounds: int = field(default=9, metadata={"help": "Rounds, in each of which all is timed in turn."})
    tokens: int | None = field(default=None, metadata={"help": "Tokens; by the device when not given."})
    hidden: int | None = field(default=None, metadata={"help": "Hidden size; by the device when not given."})
    vocabulary: int | None = field(default=None, metadata={"help": "Vocabulary; by the device when not given."})
    dtype: str | None = field(
        default=None, metadata={"help": "float32, bfloat16 or float16; by the device when not given."}
    )

    def __post_init__(self) -> None:
        self.trainings = self.trainings or list(training_cost.OURS)
        for name, values, known in (
            ("parts", self.parts, BENCHMARK_PARTS),
            ("trainings", self.trainings, training_cost.OURS),
            ("model", [self.model], MODELS),
            ("dtype", [self.dtype or "float32"], ("float32", "bfloat16", "float16")),
        ):
            check_known(name, values, list(known))
        for name in ("rounds", "tokens", "hidden", "vocabulary"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")

    def without_effect(self, values: Any) -> dict[str, str]:
        """Options that have no effect beside these values of all options, with the reason and what to do."""
        return parts_without_effect(self.parts, OPTIONS_OF_PARTS)

    @property
    def shapes(self) -> statistics_cost.Shapes:
        given = {name: getattr(self, name) for name in ("tokens", "hidden", "vocabulary", "dtype")}
        return replace(
            statistics_cost.default_shapes(), **{name: value for name, value in given.items() if value is not None}
        )


def machine() -> str:
    """Processor, or accelerator, and versions."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file() and (model_name := re.search(r"model name\s*: (.+)", info.read_text())):
        name = model_name[1]
    if torch.cuda.is_available():
        name = f"{torch.cuda.get_device_name()} beside {name}"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def add_statistics(table: Table, shapes: statistics_cost.Shapes, rounds: int) -> None:
    """Rows for `token_statistics`."""
    aims = AIMS["cuda" if shapes.device.startswith("cuda") else "cpu"]
    functions = statistics_cost.statistics_functions(shapes)
    times = timed(functions, rounds, "token_statistics")
    for name in (statistics_cost.JS, statistics_cost.ALL):
        cost_ratio = ratio(times, name, statistics_cost.PROJECTIONS)
        table.add_row(name, statistics_cost.PROJECTIONS, str(cost_ratio), aims[name])
    faster = ratio(times, statistics_cost.JS, statistics_cost.TRL).inverse()
    table.add_row(f"{statistics_cost.JS}, times faster", statistics_cost.TRL, str(faster), aims[statistics_cost.TRL])
    for name in (statistics_cost.JS, statistics_cost.ALL):
        peak = statistics_cost.peak_bytes(functions[name], shapes.device)
        shown = f"{peak / shapes.full_logits:.3f} ({peak / 2**20:.0f} MiB)"
        table.add_row(
            f"{name}, peak memory of tensors",
            f"both models' full logits at {statistics_cost.BATCH_TOKENS:,} tokens",
            shown,
            aims["memory"],
        )


def add_scoring(table: Table, model: str, tokens: int, rounds: int) -> str:
    """Rows for scoring trajectories; its shape in words."""
    functions, long, words = scoring_cost.scoring_functions(model, tokens)
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


def add_pair_engine(table: Table, model: str, rounds: int) -> str:
    """Rows for the pair engine in vLLM; its shape in words."""
    cost = pair_engine_cost.pair_engine_cost(model)
    try:
        times = timed(cost.functions, rounds, "pair engine")
    finally:
        cost.close()
    tokens = pair_engine_cost.RESPONSES * pair_engine_cost.LENGTH
    for name, aim in ((pair_engine_cost.CROSS, "at least 0.65"), (pair_engine_cost.SCORED, "at least 0.50")):
        rate = ratio(times, name, pair_engine_cost.ALONE).inverse()
        table.add_row(f"{name}, tokens/s", pair_engine_cost.ALONE, str(rate), aim)
    own = ratio(times, pair_engine_cost.DRAWN, pair_engine_cost.ALONE).inverse()
    table.add_row(f"{pair_engine_cost.DRAWN}, tokens/s", pair_engine_cost.ALONE, str(own), "")
    share = pair_engine_cost.LENGTH / pair_engine_cost.EXCHANGED_LENGTH
    faster = ratio(times, pair_engine_cost.CROSS, pair_engine_cost.EXCHANGED).inverse().scaled(share)
    times[pair_engine_cost.EXCHANGED] = [share * taken for taken in times[pair_engine_cost.EXCHANGED]]
    table.add_row(f"{pair_engine_cost.CROSS}, times faster", pair_engine_cost.EXCHANGED, str(faster), "at least 5")
    rates = ", ".join(f"{name} {tokens / median(seconds_of):.0f}" for name, seconds_of in times.items())
    return f"pair engine: {cost.words}; tokens/s: {rates}"


def add_sweep(table: Table, model: str, rl_model: str) -> str:
    """Rows for a sweep, which is run once with each engine; its shape in words."""
    cost = sweep_cost.sweep_cost(model, rl_model)
    taken, tokens = cost.seconds, cost.tokens
    tree, other = taken
    aim = {"pocket": "at least 10", "smollm2": "at least 6"}[model]
    table.add_row(f"sweep with pilot: {tree}, times faster", other, f"{taken[other] / taken[tree]:.1f}", aim)
    for name, aim in (("distinct_tokens", "at most 1.3"), ("tokens_in_cells", "")):
        share = tokens["tokens_decoded"] / tokens[name]
        table.add_row("sweep: tokens_decoded, the pilot's too", name, f"{share:.3g}", aim)
    seconds_words = " and ".join(f"{name} {value:.1f} s" for name, value in taken.items())
    return f"{cost.words}: {seconds_words}; {cost.unequal} responses differ between the engines; {tokens}"


def add_verification(table: Table, rounds: int) -> str:
    """Rows for the accuracy reward; its shape in words."""
    pool = VerificationPool(workers=2)
    for kinds in (verification_cost.KINDS, *((kind,) for kind in verification_cost.KINDS)):
        times = timed(verification_cost.verification_functions(pool, kinds), rounds, "verification")
        words = ", ".join(kinds)
        for name, aim in ((verification_cost.OURS, "at least 1.5"), (verification_cost.AGAIN, "at least 50")):
            faster = ratio(times, verification_cost.PLAIN, name)
            aim = aim if kinds == verification_cost.KINDS else ""
            table.add_row(f"{name}, times faster: {words}", verification_cost.PLAIN, str(faster), aim)
    pool.close()
    return f"verification: {verification_cost.ANSWERS} answers a round, half of them right"


def error_table(shapes: statistics_cost.Shapes) -> Table:
    """Largest errors of `token_statistics` against float64, by dtype of its inputs."""
    by_dtype = statistics_error.errors(shapes)
    table = Table(title=f"largest absolute / relative error, 128 tokens, {shapes}", title_justify="left")
    table.add_column("output")
    for dtype in by_dtype:
        table.add_column(dtype)
    for name in next(iter(by_dtype.values())):
        table.add_row(name, *("{:.1e} / {:.1e}".format(*values[name]) for values in by_dtype.values()))
    return table


def add_training(table: Table, model: str, names: list[str], rounds: int) -> str:
    """Rows for training; its shape in words."""
    with tempfile.TemporaryDirectory() as folder:
        cycles, words = training_cost.training_functions(model, Path(folder), names)
        times = timed(cycles, rounds, "training")
    for name in names:
        against = training_cost.OURS[name][0]
        cost_ratio = ratio(times, name, against)
        table.add_row(f"training: {name}", against, str(cost_ratio), TRAINING_AIMS.get(name, ""))
    return words


def startup_table(rounds: int) -> Table:
    """CPU time until a command answers, beside a bare Python and the import of torch."""
    times = startup_cost.startup_times(rounds)
    table = Table(title=f"startup: CPU time, {rounds} rounds", title_justify="left")
    for column in ("what", "seconds", f"of {startup_cost.PYTHON}", f"of {startup_cost.TORCH}"):
        table.add_column(column)
    for name, taken in times.items():
        ratios = (str(ratio(times, name, against)) for against in (startup_cost.PYTHON, startup_cost.TORCH))
        table.add_row(name, f"{median(taken):.2f}", *ratios)
    return table


def prepare(arguments: list[str] | None = None) -> BenchmarkArguments:
    """Parse and check.

    Raises:
        ValueError: For whatever is wrong, in one line.
    """
    args: BenchmarkArguments = parse_into((BenchmarkArguments,), arguments)[0]
    return args


def run(args: BenchmarkArguments) -> None:
    """Measure, and print the tables."""
    table = Table(title_justify="left")
    for column in ("what", "against", "ratio (quartiles)", "aim"):
        table.add_column(column)
    lines = [machine(), f"{args.rounds} rounds"]
    if "statistics" in args.parts:
        add_statistics(table, args.shapes, args.rounds)
        lines.append(f"token_statistics: {args.shapes}")
    if "scoring" in args.parts:
        lines.append(f"scoring: {add_scoring(table, args.model, args.shapes.tokens, args.rounds)}")
    if "cross_sampling" in args.parts:
        words = add_cross_sampling(table, args.model, args.rl_model, args.epsilon, args.rounds)
        lines.append(f"cross-sampling: {words}")
    if "pair_engine" in args.parts:
        lines.append(add_pair_engine(table, args.model, args.rounds))
    if "sweep" in args.parts:
        lines.append(f"sweep: {add_sweep(table, args.model, args.rl_model)}")
    if "training" in args.parts:
        lines.append(f"training: {add_training(table, args.model, args.trainings or [], args.rounds)}")
    if "verification" in args.parts:
        lines.append(add_verification(table, args.rounds))
    table.title = "\n".join(lines)
    if table.row_count:
        Console().print(table)
    if "errors" in args.parts:
        Console().print(error_table(args.shapes))
    if "startup" in args.parts:
        Console().print(startup_table(args.rounds))


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 2 after a user's mistake; 130 after Ctrl-C, 143 after SIGTERM."""
    return run_guarded(__file__, lambda: prepare(arguments), run, "Stopped.")


if __name__ == "__main__":
    sys.exit(main())
