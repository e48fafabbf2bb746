"""How fast `token_statistics` is: against the two projections alone, TRL's own chunked JSD, and full logits.

    python recipes/benchmark_statistics.py [--tokens 1024 --hidden 576 --vocabulary 49152 --dtype float32 --rounds 7]

Each round times all of them in turn, and ratios are taken within a round. On CPU the shapes are SmolLM2-135M's, on
CUDA a 7 B model's. Hidden states are random, scaled so that the distributions are about as peaked as a language
model's.
"""

import argparse
import platform
import time
from collections.abc import Callable
from statistics import median

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

from tokenshift.analysis import STATISTICS, LMHead, token_statistics


def make_inputs(
    tokens: int, hidden: int, vocabulary: int, dtype: torch.dtype, device: str
) -> tuple[torch.Tensor, torch.Tensor, LMHead, LMHead, torch.Tensor]:
    """Two models' states and heads: 9 of 10 tokens hardly moved; entropies from about 0 to 8 nats."""
    generator = torch.Generator().manual_seed(0)
    sharpness = torch.rand(tokens, 1, generator=generator) * 6
    base = torch.randn(tokens, hidden, generator=generator) * sharpness
    moved = (torch.rand(tokens, 1, generator=generator) < 0.1).float() * 0.3 + 0.003
    rl = base + moved * sharpness * torch.randn(tokens, hidden, generator=generator)
    weight = torch.randn(vocabulary, hidden, generator=generator) / hidden**0.5
    ids = torch.randint(vocabulary, (tokens,), generator=generator)
    base, rl, weight = (tensor.to(device, dtype) for tensor in (base, rl, weight))
    return base, rl, LMHead(weight), LMHead(weight.clone()), ids.to(device)


def seconds(function: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    function()
    if device != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - start


def peak_bytes(function: Callable[[], object], device: str) -> int | None:
    """Most memory held at once beyond what was held before, on CUDA; None on CPU, which does not count it."""
    if device == "cpu":
        return None
    torch.accelerator.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.accelerator.synchronize()
    return torch.cuda.max_memory_allocated() - before


def main() -> None:
    device = str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"
    shapes = (1024, 576, 49152, "float32") if device == "cpu" else (8192, 3584, 152064, "bfloat16")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in zip(("tokens", "hidden", "vocabulary"), shapes[:3], strict=True):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default=shapes[3], choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    base, rl, head_base, head_rl, ids = make_inputs(
        args.tokens, args.hidden, args.vocabulary, getattr(torch, args.dtype), device
    )

    def projections() -> None:
        for start in range(0, args.tokens, 256):
            torch.mm(base[start : start + 256], head_base.weight.t())
            torch.mm(rl[start : start + 256], head_rl.weight.t())

    def statistics(outputs: tuple[str, ...]) -> dict[str, torch.Tensor]:
        return token_statistics(base, rl, head_base, head_rl, ids, outputs=outputs, top_p=0.7)

    def trl_jsd() -> None:
        with torch.no_grad():
            ChunkedDivergenceFunction.apply(
                rl, head_rl.weight, None, base, head_base.weight, None, 0.5, 1.0, 1.0, None, 1.0, None
            )

    whole = tuple(name for name in STATISTICS if not name.endswith("top_p"))
    functions: dict[str, Callable[[], object]] = {
        "the two projections": projections,
        "token_statistics, js": lambda: statistics(("js",)),
        "token_statistics, all of whole distributions": lambda: statistics(whole),
        "token_statistics, all, top-p 0.7 included": lambda: statistics(STATISTICS),
        "TRL's chunked JSD, forward": trl_jsd,
    }
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in track(range(args.rounds + 1), description="rounds"):
        for name, function in functions.items():
            taken = seconds(function, device)
            if number:  # the first warms up
                times[name].append(taken)
    table = Table(
        title=f"N {args.tokens}, H {args.hidden}, V {args.vocabulary}, {args.dtype}, {device}\n"
        f"{platform.machine()}, {torch.get_num_threads()} threads, {args.rounds} rounds"
    )
    for column in ("what", "against the two projections", "smallest to largest", "peak MiB"):
        table.add_column(column)
    for name, values in times.items():
        ratios = [value / own for value, own in zip(values, times["the two projections"], strict=True)]
        peak = peak_bytes(functions[name], device)
        table.add_row(
            name,
            f"{median(ratios):.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
            "" if peak is None else f"{peak / 2**20:.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
