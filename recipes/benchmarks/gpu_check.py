"""Checks that need a GPU, in one run of at most 8 minutes: tests, statistics, kernel, training, scoring, sampling.

    make gpu                                                            # on a machine with a GPU
    python -m tokenshift.recipes.benchmarks.gpu_check --tiny            # the same code at small sizes, on any machine

Parts come in the order in which they matter; each that would begin after the time is over is skipped, and one that
fails leaves the others. `gpu.json` and `gpu.md`, a table with the card's name, lie in the output folder, and are
written anew after every part.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tokenshift.analysis.sampling.trajectories import Trajectory
from tokenshift.analysis.token_table.scoring import PairScorer
from tokenshift.recipes.benchmarks import cross_cost, scoring_cost, statistics_cost, training_cost
from tokenshift.recipes.benchmarks.timing import ratio, timed
from tokenshift.recipes.inputs.models import resolve_model
from tokenshift.recipes.pocket.make_base import make_tokenizer
from tokenshift.recipes.pocket.problems import pocket_dataset

LIMIT = 480.0
"""Seconds after which no part begins."""

TRAINED = ("none, probe off", "k3", "js against base")
"""Ways of training whose time is compared with stock GRPO's."""

BLOCKS, WARPS = (1024, 2048, 4096, 8192), (4, 8, 16)
"""Blocks and warps that the kernel's sweep tries."""


@dataclass(frozen=True)
class Sizes:
    """The shapes that are measured.

    Attributes:
        statistics: shapes of `token_statistics`.
        model: of the random Qwen2 that is trained and scored, as fields of its config.
        batch, length: completions of an update of it, and tokens of the longest.
        scored: tokens of the trajectory that is scored.
        cross: responses, how many at once, tokens of a response at most.
        rounds: how often all is timed in turn.
    """

    statistics: statistics_cost.Shapes
    model: dict[str, int]
    batch: int
    length: int
    scored: int
    cross: tuple[int, int, int]
    rounds: int


def sizes(*, tiny: bool) -> Sizes:
    """A 7 B model's head and a model of 1.2 billion parameters, or sizes that a CPU does in seconds."""
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    if tiny:
        small = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, **heads}
        shapes = statistics_cost.Shapes(64, 16, 500, "float32", "cpu")
        return Sizes(shapes, small, 8, 12, 64, (4, 4, 8), 1)
    large = {"vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 20}
    large |= {"num_attention_heads": 12, "num_key_value_heads": 2}
    return Sizes(statistics_cost.default_shapes(), large, 8, 2048, 8192, (64, 64, 120), 5)


class Check:
    """Runs the parts and keeps what they find.

    Args:
        out: the folder of results.
        tiny: whether sizes are small.
        limit: seconds after which no part begins.
    """

    def __init__(self, out: Path, *, tiny: bool, limit: float) -> None:
        self.out, self.tiny, self.limit, self.sizes = out, tiny, limit, sizes(tiny=tiny)
        self.start = time.monotonic()
        on_gpu = torch.cuda.is_available() and not tiny
        self.device = "cuda" if on_gpu else "cpu"
        self.card = torch.cuda.get_device_name() if on_gpu else "CPU"
        self.rows: list[dict[str, Any]] = []

    def add(self, part: str, what: str, against: str, found: str, **more: Any) -> None:
        """Keep one row of the table."""
        self.rows.append({"part": part, "what": what, "against": against, "found": found, **more})
        print(f"{part}: {what}: {found}", flush=True)

    def run(self, part: str, function: Callable[["Check"], None]) -> None:
        """One part, unless the time is over; its failure is a row."""
        began = time.monotonic()
        if began - self.start > self.limit:
            self.add(part, "skipped", "", f"{self.limit:g} seconds were over", skipped=True)
        else:
            try:
                function(self)
            except Exception as error:  # the other parts go on
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                self.add(part, "failed", "", reason, failed=True, trace=traceback.format_exc()[-3000:])
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
        self.write(part, time.monotonic() - began)

    def write(self, part: str, taken: float) -> None:
        """The files of results."""
        for row in self.rows:
            if row["part"] == part:
                row.setdefault("seconds_of_part", round(taken, 1))
        head = {"card": self.card, "torch": torch.__version__, "tiny": self.tiny, "rows": self.rows}
        (self.out / "gpu.json").write_text(json.dumps(head, indent=1) + "\n", encoding="utf-8")
        lines = [
            f"{self.card}, torch {torch.__version__}",
            "",
            "| part | what | against | found |",
            "|---|---|---|---|",
        ]
        cells = ([row[name].replace("|", "\\|") for name in ("part", "what", "against", "found")] for row in self.rows)
        lines += ["| " + " | ".join(row) + " |" for row in cells]
        (self.out / "gpu.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_tests(check: Check) -> None:
    """The tests that need a GPU."""
    if check.device != "cuda":
        check.add("tests", "pytest -m gpu", "", "no CUDA device")
        return
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/analysis/divergence",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    last = next((line for line in done.stdout.splitlines()[::-1] if line.strip()), "no output")
    check.add("tests", "pytest -m gpu", "", last, failed=done.returncode != 0, output=done.stdout[-4000:])


def check_statistics(check: Check) -> None:
    """Time and memory of `token_statistics`, and whether a repeat is equal bit for bit."""
    shapes = check.sizes.statistics
    functions = statistics_cost.statistics_functions(shapes)
    times = timed(functions, check.sizes.rounds, "statistics")
    for name in (statistics_cost.JS, statistics_cost.ALL):
        against = f"{statistics_cost.PROJECTIONS}, {1000 * median(times[statistics_cost.PROJECTIONS]):.3g} ms"
        cost = ratio(times, name, statistics_cost.PROJECTIONS)
        peak = statistics_cost.peak_bytes(functions[name], shapes.device)
        check.add("statistics", f"{name}, {shapes}", against, f"{cost}; {peak / 2**20:.0f} MiB", ratio=cost.middle)
    faster = ratio(times, statistics_cost.JS, statistics_cost.TRL).inverse()
    check.add("statistics", f"{statistics_cost.JS}, times faster", statistics_cost.TRL, str(faster))
    first, second = (functions[statistics_cost.ALL]() for _ in range(2))
    unequal = [name for name in first if not torch.equal(first[name], second[name])]  # type: ignore[attr-defined, index]
    check.add(
        *("statistics", "all outputs, once more", "themselves", f"differ in {unequal}" if unequal else "equal bits"),
        failed=bool(unequal),
    )


def sweep_kernel(check: Check) -> None:
    """Blocks and warps of the kernel of the sums."""
    if check.device != "cuda":
        check.add("kernel", "sweep of blocks and warps", "", "no CUDA device")
        return
    from tokenshift.analysis.divergence import expectations_triton as kernel  # needs triton

    base = 3 * torch.randn(512, check.sizes.statistics.vocabulary, device=check.device)
    rl, usual = base + 0.1 * torch.randn_like(base), kernel.WARPS
    read = 4 * base.nbytes  # both models' logits, twice

    def sums(block: int) -> Callable[[], object]:
        return lambda: kernel.row_sums_triton(base, rl, kernel.EXPECTATIONS, block=block)

    try:
        for warps in WARPS:
            kernel.WARPS = warps
            for block in BLOCKS:
                times = timed({"sums": sums(block)}, 10, f"kernel {block}/{warps}")["sums"]
                found = f"{1000 * median(times):.3g} ms, {read / median(times) / 1e12:.2g} TB/s"
                check.add("kernel", f"{block} logits, {warps} warps", "", found)
    finally:
        kernel.WARPS = usual


def train(check: Check, model: training_cost.Trained, name: str) -> None:
    """Ratios of training to stock GRPO on the same completions, without sampling and the optimizer's step."""
    with tempfile.TemporaryDirectory() as folder:
        cycles, words = training_cost.training_functions(model, Path(folder), list(TRAINED))
        times = timed(cycles, check.sizes.rounds, f"training {name}")
    for way in TRAINED:
        against = training_cost.OURS[way][0]
        shown = f"{against}, {median(times[against]):.3g} s"
        check.add("training", f"{way}: {words}", shown, str(ratio(times, way, against)))


def train_pocket(check: Check) -> None:
    """Pocket, with completions of random ids."""
    batch, length = (8, 12) if check.tiny else (32, 96)
    ids = len(make_tokenizer())
    model = training_cost.Trained(resolve_model("pocket"), pocket_dataset("train", 64), batch, length, ids)
    train(check, model, "pocket")


def train_large(check: Check) -> None:
    """The random Qwen2, with gradient checkpointing, in bfloat16 on a GPU."""
    with tempfile.TemporaryDirectory() as folder:
        path, parameters = save_random_model(check, Path(folder))
        kinds = {"model_init_kwargs": {"dtype": "float32" if check.tiny else "bfloat16"}}
        settings = {"gradient_checkpointing": True, **kinds}
        ids, problems = len(make_tokenizer()), pocket_dataset("train", 64)
        batch, length = check.sizes.batch, check.sizes.length
        model = training_cost.Trained(path, problems, batch, length, ids, settings)
        train(check, model, f"of {parameters / 1e9:.3g} billion parameters")


def save_random_model(check: Check, folder: Path) -> tuple[str, int]:
    """A random Qwen2 with pocket's tokenizer, in a folder whose name says its size, and its parameters."""
    torch.manual_seed(0)
    places = {"max_position_embeddings": 2 * max(check.sizes.scored, check.sizes.length), "tie_word_embeddings": True}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = Qwen2Config(**check.sizes.model, **places, **special)  # type: ignore[arg-type]
    with torch.device(check.device):
        model: Any = Qwen2ForCausalLM(config)
    model = model.to(torch.float32 if check.tiny else torch.bfloat16)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with torch.no_grad():
        model.model.norm.weight.mul_(7)  # logits about as peaked as a language model's
    path = folder / f"qwen2_{parameters / 1e9:.3g}b"
    model.save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return str(path), parameters


def score(check: Check) -> None:
    """One long trajectory, all columns of the table."""
    with tempfile.TemporaryDirectory() as folder:
        path, _ = save_random_model(check, Path(folder))
        dtype = torch.float32 if check.tiny else torch.bfloat16
        pair: list[Any] = [Qwen2ForCausalLM.from_pretrained(path, dtype=dtype) for _ in range(2)]
    base, rl = (model.to(check.device).eval() for model in pair)
    with torch.no_grad():
        for parameter in rl.parameters():
            parameter.add_(0.02 * parameter.float().std(correction=0) * torch.randn_like(parameter))
    tokenizer = make_tokenizer()
    ids = torch.randint(3, len(tokenizer), (check.sizes.scored,), generator=torch.Generator().manual_seed(0)).tolist()
    functions = scoring_cost.scoring_pair(PairScorer(base, rl, tokenizer), [Trajectory(0, 0, ids[:16], ids[16:])])
    times = timed(functions, check.sizes.rounds, "scoring")
    rate = len(ids) / median(times[scoring_cost.SCORING])
    cost = ratio(times, scoring_cost.SCORING, scoring_cost.FORWARDS)
    found = f"{cost}; {rate:,.0f} tokens/s"
    check.add("scoring", f"{scoring_cost.SCORING}, {len(ids)} tokens", scoring_cost.FORWARDS, found)


def cross(check: Check) -> None:
    """Draft-and-verify against lock-step on pocket, whose second model is the first with noise."""
    source: Any = resolve_model("pocket")
    with tempfile.TemporaryDirectory() as folder:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(source)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * parameter.std(correction=0) * torch.randn_like(parameter))
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
        cost = cross_cost.cross_cost("pocket", folder, 0.01, obvious=False, shape=check.sizes.cross)
        times = timed(cost.functions, check.sizes.rounds, "cross-sampling", warm=True)
    for name, against in ((cross_cost.DRAFT, cross_cost.PLAIN), (cross_cost.LOCKSTEP, cross_cost.DRAFT)):
        taken = f"{median(times[name]):.3g} s"
        check.add("cross-sampling", name, against, f"{ratio(times, name, against)}; {taken}", shape=cost.words)
    check.add("cross-sampling", "responses that differ", "between the engines", str(cost.unequal))


PARTS: dict[str, Callable[[Check], None]] = {
    "tests": run_tests,
    "statistics": check_statistics,
    "kernel": sweep_kernel,
    "training, pocket": train_pocket,
    "training, large": train_large,
    "scoring": score,
    "cross-sampling": cross,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; exit status 0, or 1 where one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--tiny", action="store_true", help="Small sizes, on CPU.")
    parser.add_argument("--limit", type=float, default=LIMIT, help="Seconds after which no part begins.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/gpu"), help="Folder of gpu.json and gpu.md.")
    given = parser.parse_args(arguments)
    if not given.tiny and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device that torch sees; --tiny runs the same code at small sizes.")
    given.output_dir.mkdir(parents=True, exist_ok=True)
    check = Check(given.output_dir, tiny=given.tiny, limit=given.limit)
    for part, function in PARTS.items():
        check.run(part, function)
    print(f"{given.output_dir / 'gpu.md'}, {time.monotonic() - check.start:.0f} seconds")
    return int(any(row.get("failed") for row in check.rows))


if __name__ == "__main__":
    sys.exit(main())
