"""A long training: memory, open files, threads, processes and the time of an update against updates.

    python tests/faults/soak.py                      # 2,000 updates of pocket: make soak
    python tests/faults/soak.py --updates 200 --output_dir outputs/soak_short

It writes `soak.jsonl` (a row every ten updates), `soak.png` and `soak.json` with the slopes. A quantity counts as flat
if its straight line over the second half of the run rises by less than the limit of `LIMITS`, from its start to its
end, as a share of its value there.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import psutil
from matplotlib import pyplot as plt
from scipy.stats import theilslopes
from transformers import TrainerCallback

from tokenshift.recipes.inputs.models import resolve_model
from tokenshift.recipes.pocket.problems import pocket_dataset
from tokenshift.rewards import accuracy_reward
from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer

QUANTITIES = {
    "memory": "memory of the training's process, MiB",
    "workers_memory": "memory of its other processes, MiB",
    "files": "open files, all processes",
    "threads": "threads, all processes",
    "processes": "processes",
    "blocks": "thousands of Python's memory blocks",
    "seconds": "CPU seconds an update, training's process",
    "work": "the same, in units of a fixed computation",
}
LIMITS = {
    "memory": 0.02,
    "workers_memory": 0.02,
    "files": 0.0,
    "threads": 0.02,
    "processes": 0.0,
    "blocks": 0.02,
    "work": 0.1,
}
"""The largest rise over the second half that still counts as flat, as a share.

One thread of about twenty comes and goes. `seconds` has no limit: other work on the machine makes them longer, and the
fixed computation, which is timed beside them, as well.
"""

EVERY = 10
"""Updates between two rows."""


def unit() -> float:
    """CPU seconds of a fixed computation: the median of five."""
    matrix, times = np.ones((192, 192), dtype=np.float32), []
    for _ in range(5):
        start = time.thread_time()
        for _ in range(20):
            matrix @ matrix
        sorted(range(50_000), key=lambda number: -number)
        times.append(time.thread_time() - start)
    return median(times)


class Record(TrainerCallback):
    """Appends a row of `QUANTITIES` to a file every `EVERY` updates."""

    def __init__(self, file: Path) -> None:
        self.file, self.process = file, psutil.Process()
        self.last = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % EVERY:
            return
        seconds = (time.process_time() - self.last) / EVERY
        others = self.process.children(recursive=True)
        row = {
            "update": state.global_step,
            "memory": self.process.memory_info().rss / 2**20,
            "workers_memory": sum(process.memory_info().rss for process in others) / 2**20,
            "files": sum(process.num_fds() for process in (self.process, *others)),
            "threads": sum(process.num_threads() for process in (self.process, *others)),
            "processes": 1 + len(others),
            "blocks": sys.getallocatedblocks() / 1000,
            "seconds": seconds,
            "work": seconds / unit(),
        }
        with self.file.open("a", encoding="utf-8") as rows:
            rows.write(json.dumps(row) + "\n")
        self.last = time.process_time()


def train(folder: Path, updates: int) -> None:
    """GRPO on pocket with dynamic sampling, the accuracy reward's two processes, a probe, and checkpoints."""
    args = DivergenceGRPOConfig(
        output_dir=str(folder / "training"),
        max_steps=updates,
        per_device_train_batch_size=4,
        num_generations=4,
        steps_per_generation=4,
        max_completion_length=96,
        learning_rate=1e-7,  # the policy stays one whose groups are neither all right nor all wrong
        loss_type="dapo",
        divergence="js",
        divergence_reference="base",
        dynamic_sampling=True,
        probe_steps=50,
        probe_size=8,
        save_steps=250,
        save_total_limit=2,
        report_to=["wandb"],
        use_cpu=True,
        bf16=False,
        seed=0,
    )
    dataset, problems = pocket_dataset("train", 4096), pocket_dataset("eval", 64)
    record = Record(folder / "soak.jsonl")
    trainer = DivergenceGRPOTrainer(
        resolve_model("pocket"), accuracy_reward, args, dataset, eval_dataset=problems, callbacks=[record]
    )
    trainer.train()


def rises(rows: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Per quantity the value at the middle, and the rise of a straight line (Theil and Sen's) over the second half."""
    half = rows["update"] >= rows["update"][-1] / 2
    results = {}
    for name in QUANTITIES:
        slope, offset, *_ = theilslopes(rows[name][half], rows["update"][half])
        start, end = (slope * update + offset for update in (rows["update"][half][0], rows["update"][-1]))
        results[name] = {"middle": round(float(start), 4), "rise": round(float(end / max(start, 1e-9) - 1), 5)}
    return results


def plot(rows: dict[str, np.ndarray], file: Path) -> None:
    """A panel for each quantity against updates."""
    figure, panels = plt.subplots(2, 4, figsize=(14, 5.5), layout="constrained")
    for panel, (name, title) in zip(panels.flat, QUANTITIES.items(), strict=True):
        panel.plot(rows["update"], rows[name], linewidth=1)
        panel.set_title(title, fontsize=10)
        panel.set_ylim(0, float(np.quantile(rows[name], 0.99)) * 1.3)
        panel.set_xlabel("updates")
    figure.savefig(file, dpi=110)


def main() -> int:
    """Exit status 0 where everything is flat, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/soak"))
    options = parser.parse_args()
    folder: Path = options.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_DIR", str(folder))
    (folder / "soak.jsonl").unlink(missing_ok=True)
    train(folder, options.updates)
    lines = [json.loads(line) for line in (folder / "soak.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = {name: np.array([line[name] for line in lines], dtype=float) for name in lines[0]}
    plot(rows, folder / "soak.png")
    found = rises(rows)
    (folder / "soak.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, title in QUANTITIES.items():
        flat = found[name]["rise"] <= LIMITS.get(name, float("inf"))
        verdict = ("flat" if flat else "RISES") if name in LIMITS else ""
        print(f"{title:42} {found[name]['middle']:10.2f}  {found[name]['rise']:+8.2%}  {verdict}")
    return int(any(found[name]["rise"] > limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
