"""Stands in for the recipes that a comparison launches: `fake_recipes.py training --config X`, and `evaluation`.

What goes wrong is in the variant's name. Every launch leaves a line in `launches.txt` beside the cells.
"""

import hashlib
import json
import signal
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

PROBLEMS = 6


def share(*parts: object) -> float:
    """A number in [0, 1) that depends on nothing else."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big") / 2**32


def launched(folder: Path, what: str) -> int:
    """How often this was launched, this time included."""
    file = folder.parent.parent / "launches.txt"
    with file.open("a") as log:
        log.write(f"{folder.name} {what}\n")
    return file.read_text().split("\n").count(f"{folder.name} {what}")


def train(words: list[str]) -> int:
    config = yaml.safe_load(Path(words[words.index("--config") + 1]).read_text())
    folder = Path(config["output_dir"])
    name = folder.name
    times = launched(folder, "training")
    if name.startswith("refused"):
        print("grpo_divweighted.py: learning_rate is not to its liking.", file=sys.stderr)
        return 2
    updates = config["max_steps"]
    for update in range(1, updates + 1):
        print(f"update {update}/{updates}  reward 0.5", flush=True)
        if update == updates // 2:
            if name.startswith("broken") or (name.startswith("shaky") and times == 1):
                raise RuntimeError("out of memory at [/INST]")  # no markup
            if name.startswith("hangs") and times == 1:
                signal.signal(signal.SIGINT, lambda *_: sys.exit(0))  # as a training that saved a checkpoint
                time.sleep(600)
    (folder / f"checkpoint-{updates}").mkdir(exist_ok=True)
    log = [{"step": step, "reward": share(name, step)} for step in range(1, updates + 1)]
    (folder / "log_history.json").write_text(json.dumps(log))
    (folder / "shift").mkdir(exist_ok=True)
    js = [share(name, "js", place) ** 8 for place in range(50)]
    for step in (0, updates):
        rows = {"trajectory": ["own"] * 25 + ["fixed"] * 25, "js": js if step else [0.0] * 50}
        pq.write_table(pa.table(rows), folder / "shift" / f"step_{step:06d}.parquet")
    (folder / "model").mkdir(exist_ok=True)
    summary = {"stopped_early": False, "updates": updates, "train_seconds": 0.1 * updates}
    (folder / "summary.json").write_text(json.dumps(summary))
    return 0


def evaluate(words: list[str]) -> int:
    out = Path(words[words.index("--output_dir") + 1])
    cell = out.parent
    launched(cell, "evaluation")
    rows = {
        "set": ["pocket"] * 2 * PROBLEMS,
        "problem_id": [problem for problem in range(PROBLEMS) for _ in range(2)],
        "correct": [share(cell.name, place) < 0.6 for place in range(2 * PROBLEMS)],
    }
    (out / "responses").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), out / "responses" / "pocket.parquet")
    (out / "evaluation.json").write_text("{}")
    return 0


if __name__ == "__main__":
    sys.exit({"training": train, "evaluation": evaluate}[sys.argv[1]](sys.argv[2:]))
