"""What weighting costs: time of an update with it against stock TRL's, pair by pair in one run.

    python recipes/benchmark.py                      # pocket
    python recipes/benchmark.py --model smollm2 --pairs 10

An update here is the forward and backward pass and the log, on the same completions for all; generation and the
optimizer, which are the same for all and would dilute the ratio, are left out. On a noisy machine read the median.
"""

import argparse
import platform
import tempfile
import time
import warnings
from statistics import median, quantiles
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import PrinterCallback
from transformers.utils.logging import disable_progress_bar
from trl import GRPOConfig, GRPOTrainer

from tokenshift.recipes.models import resolve_model
from tokenshift.recipes.pocket.problems import pocket_dataset
from tokenshift.recipes.sums import sums_dataset
from tokenshift.rewards import accuracy_reward
from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer

BATCH = {"pocket": 32, "smollm2": 8}  # completions an update
VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"advantage_weighting": "none"},
    "k3": {},
    "k3, shuffled": {"weight_control": "shuffle"},
    "k3, normalised": {"normalize_weights": True},
}


def build(model: str, folder: str, settings: dict[str, Any] | None) -> Any:
    """A trainer that has made one update; stock TRL's when `settings` is None."""
    config: Any
    trainer_class: Any
    config, trainer_class = (
        (GRPOConfig, GRPOTrainer) if settings is None else (DivergenceGRPOConfig, DivergenceGRPOTrainer)
    )
    on_cpu = not torch.accelerator.is_available()
    args = config(
        output_dir=folder,
        per_device_train_batch_size=BATCH[model],
        num_generations=8,
        steps_per_generation=2,
        max_completion_length=96 if model == "pocket" else 32,
        loss_type="dapo",
        learning_rate=1e-6,
        max_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=on_cpu,
        bf16=not on_cpu,
        gradient_checkpointing=False,
        **(settings or {}),
    )
    trainer = trainer_class(
        model=resolve_model(model),
        reward_funcs=accuracy_reward,
        args=args,
        train_dataset=(pocket_dataset if model == "pocket" else sums_dataset)("train", 64),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer


def timed_update(trainer: Any, inputs: dict[str, Any]) -> float:
    """Seconds of a forward and backward pass on `inputs`, and the log."""
    trainer._buffered_inputs = [inputs] * trainer.args.steps_per_generation
    trainer._step = 1  # inside a generation: nothing is generated
    trainer.model.zero_grad()
    start = time.perf_counter()
    trainer.training_step(trainer.model_wrapped, inputs, None)
    trainer.log({})
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(BATCH), default="pocket")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--weightings", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)  # from libraries to libraries
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        stock = build(args.model, folder, None)
        trainers = {name: build(args.model, folder, VARIANTS[name]) for name in args.weightings}
        inputs = dict(stock._buffered_inputs[1])
        for trainer in (stock, *trainers.values()):
            timed_update(trainer, inputs)
        ratios: dict[str, list[float]] = {name: [] for name in trainers}
        for _ in track(range(args.pairs), description="updates"):
            for name, trainer in trainers.items():
                ours, theirs = timed_update(trainer, inputs), timed_update(stock, inputs)
                ratios[name].append(ours / theirs)
    shape = tuple(inputs["completion_ids"].shape)
    table = Table(
        title=f"time of an update against stock GRPO: {args.model}, completions {shape}, {stock.model.dtype}\n"
        f"{platform.machine()}, {torch.get_num_threads()} threads, {stock.accelerator.device}, {args.pairs} pairs",
    )
    for column in ("weighting", "median ratio", "quartiles"):
        table.add_column(column)
    for name, values in ratios.items():
        low, _, high = quantiles(values, n=4)
        table.add_row(name, f"{median(values):.3f}", f"{low:.3f} to {high:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
