"""Throughput of scoring, evaluation and training with one and with two processes, each with threads of its own.

The same work is shared out in each case; processes are pinned to CPUs, and a round lasts until the last of them is
done. Two threads of one process say how far the machine itself doubles.

    python -m tokenshift.recipes.benchmarks.processes                       # pocket, 5 rounds: some minutes
    python -m tokenshift.recipes.benchmarks.processes --model smollm2 --rounds 3 --json processes.json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenshift.recipes.benchmarks.timing import ratio

SCORING, EVALUATION, TRAINING = "scoring", "evaluation", "training, js against base"
ONE = "1 process, 1 thread"


@dataclass(frozen=True)
class Case:
    """How the work is shared out.

    Attributes:
        processes: their number.
        threads: of each.
    """

    processes: int
    threads: int


CASES = {ONE: Case(1, 1), "1 process, 2 threads": Case(1, 2), "2 processes, 1 thread each": Case(2, 1)}
"""Cases by name; the first one is what the others are compared with."""

TRAJECTORIES, RESPONSES, TOKENS = 16, 64, 48
"""Trajectories of 256 tokens that are scored; responses that are sampled and judged, and tokens of each at most."""


def works(model: str, folder: Path, rank: int, processes: int) -> dict[str, Callable[[], object]]:
    """The functions that do a process's share of each work, once a round.

    Args:
        model: `pocket` or `smollm2`.
        folder: for the trainer.
        rank, processes: of this process.
    """
    from tokenshift.analysis.sampling.generators import Sampling, TransformersGenerator
    from tokenshift.analysis.sampling.requests import Request
    from tokenshift.recipes.benchmarks import scoring_cost, training_cost
    from tokenshift.rewards import load_reward

    known = training_cost.known(model)
    timed, _, _ = scoring_cost.scoring_functions(model, TRAJECTORIES // processes * 256)
    settings = training_cost.OURS["js against base"][1] | {"gradient_accumulation_steps": 1}
    share = training_cost.Trained(known.path, known.problems, known.batch * 2 // processes, known.length)
    trainer = training_cost.build(share, folder / str(rank), settings, stock=False)
    cycle = training_cost.made_cycle(trainer)
    tokenizer = trainer.processing_class
    policy = trainer.accelerator.unwrap_model(trainer.model)
    problems = [known.problems[index % len(known.problems)] for index in range(rank, RESPONSES, processes)]
    requests = [
        Request((rank + index * processes, 0), tokenizer(row["prompt"])["input_ids"])
        for index, row in enumerate(problems)
    ]
    generator = TransformersGenerator(policy, tokenizer, Sampling(max_new_tokens=TOKENS))
    reward: Any = load_reward("accuracy_reward")

    def evaluate() -> None:
        policy.eval()
        texts = tokenizer.batch_decode(generator(requests), skip_special_tokens=True)
        reward(completions=texts, solution=[row["solution"] for row in problems])
        policy.train()

    return {SCORING: timed[scoring_cost.SCORING], EVALUATION: evaluate, TRAINING: cycle}


def measure(model: str, rounds: int) -> dict[str, list[float]] | None:
    """Seconds of each work in each round, in this process group; None on processes other than the first."""
    import torch
    from accelerate import PartialState
    from datasets import disable_progress_bars
    from transformers.utils.logging import set_verbosity_error

    disable_progress_bars()
    set_verbosity_error()
    state, threads = PartialState(cpu=True), torch.get_num_threads()
    first = state.process_index * threads
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[first : first + threads]))
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, work in works(model, Path(folder), state.process_index, state.num_processes).items():
            for number in range(rounds + 1):
                state.wait_for_everyone()
                start = time.perf_counter()
                work()
                state.wait_for_everyone()
                if number:  # the first one warms up
                    times.setdefault(name, []).append(time.perf_counter() - start)
    return times if state.is_main_process else None


def _launched(name: str, model: str, rounds: int) -> dict[str, list[float]]:
    """The times of a case, whose processes are started here."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "times.json"
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(case.processes), "-m"]
        words += [__spec__.name, "--model", model, "--rounds", str(rounds), "--worker", str(file)]
        threads = {"OMP_NUM_THREADS": str(case.threads), "MKL_NUM_THREADS": str(case.threads)}
        subprocess.run([sys.executable, *words], env=os.environ | threads, check=True)
        times: dict[str, list[float]] = json.loads(file.read_text(encoding="utf-8"))
        return times


def main() -> int:
    """Print a table; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pocket", choices=("pocket", "smollm2"))
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each work, after one that warms up")
    parser.add_argument("--json", default=None, help="a file for the times")
    parser.add_argument("--worker", default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error(f"--rounds {given.rounds} must be at least 1.")
    if given.worker is not None:
        times = measure(given.model, given.rounds)
        if times is not None:
            Path(given.worker).write_text(json.dumps(times), encoding="utf-8")
        return 0
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("two processes need two CPUs, and this process may use one.")
    measured = {name: _launched(name, given.model, given.rounds) for name in CASES}
    if given.json is not None:
        Path(given.json).write_text(json.dumps({"model": given.model, "seconds": measured}), encoding="utf-8")
    print(f"{given.model}, {given.rounds} rounds; throughput relative to {ONE}, median (quartiles)")
    for work in measured[ONE]:
        rates = []
        for name in [name for name in CASES if name != ONE]:
            compared = ratio({ONE: measured[ONE][work], name: measured[name][work]}, name, ONE).inverse()
            rates.append(f"{name} {compared}")
        print(f"{work}: {'; '.join(rates)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
