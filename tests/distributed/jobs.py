"""Runs of recipes under an engine: one launch, whose processes import everything once and fork for each run."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]

WORKER = Path(__file__).with_name("worker.py")

ENGINES: dict[str, str | None] = {
    "one": None,
    "padded": None,
    "ddp": "ddp.yaml",
    "zero2": "zero2.yaml",
    "zero3": "zero3.yaml",
    "fsdp2": "fsdp2.yaml",
}
"""Name -> the file of `accelerate_configs/` that launches two processes; None for a single process.

`padded` is one process that pads prompts and completions further, as each of several processes pads its own: this
changes rounding and nothing else, so that its distance from `one` is what may be expected of an engine.
"""

TITLES = {
    "one": "one",
    "padded": "padded",
    "ddp": "DDP",
    "zero2": "ZeRO-2",
    "zero3": "ZeRO-3",
    "fsdp2": "FSDP2",
}

JOB_SECONDS = 600
"""Seconds that a run may take."""


@dataclass(frozen=True)
class Job:
    """A run of a recipe.

    Attributes:
        recipe: The recipe's module.
        folder: Its output folder, absolute.
        words: Its arguments, beside `--output_dir`.
        store: The file of stored completions; None where the run samples.
        micro_steps: Backward passes per generation, where completions are stored.
        resumes: Folder of a run from whose first checkpoint this one goes on.
    """

    recipe: str
    folder: str
    words: tuple[str, ...]
    store: str | None = None
    micro_steps: int = 1
    resumes: str | None = None

    def cpu_seconds(self) -> float:
        """Seconds on the CPU of all its processes."""
        files = Path(self.folder).parent.glob(f"{Path(self.folder).name}.*.status")
        return sum(json.loads(file.read_text())["cpu_seconds"] for file in files)

    def failure(self) -> str | None:
        """Why the run has not ended well, by the last line of the process that says so; None if it has."""
        for file in sorted(Path(self.folder).parent.glob(f"{Path(self.folder).name}.*.status")):
            if (status := json.loads(file.read_text())["status"]) != 0:
                said = file.with_suffix(".txt").read_text(errors="replace").strip().splitlines()
                return f"exit status {status}: {said[-1] if said else 'nothing was printed'}"
        return None if Path(f"{self.folder}.0.status").is_file() else "it was not run"


def missing(engine: str) -> str | None:
    """Why an engine cannot be used on this machine; None if it can."""
    if not engine.startswith("zero"):
        return None
    if find_spec("deepspeed") is None:
        return "deepspeed is not installed"
    if shutil.which("g++") is None:
        return "DeepSpeed builds a communication op on CPU, which needs g++"
    return None


def run_jobs(engine: str, jobs: Sequence[Job], folder: Path) -> None:
    """Run them one after the other under an engine; `Job.failure` says how each has ended.

    Args:
        engine: One of `ENGINES`.
        jobs: The runs, whose folders lie in `folder`.
        folder: Where the list of them is written.

    Raises:
        RuntimeError: if the launch itself fails.
    """
    file = folder / f"{engine}.json"
    listed = {"fsdp_on_cpu": engine == "fsdp2", "jobs": [{**asdict(job), "port": _free_port()} for job in jobs]}
    file.write_text(json.dumps(listed))
    config = ENGINES[engine]
    launcher: list[str] = []
    if config is not None:
        launcher = ["-m", "accelerate.commands.launch", "--main_process_port", str(_free_port())]
        launcher += ["--config_file", str(ROOT / "accelerate_configs" / config)]
    quiet = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "TOKENIZERS_PARALLELISM": "false"}
    on_cpu = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    run = subprocess.run(
        [sys.executable, *launcher, str(WORKER), str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, **quiet, **on_cpu, "PYTHONPATH": str(ROOT / "tests")},
        cwd=folder,
    )
    if run.returncode:
        raise RuntimeError(f"The launch under {TITLES[engine]} failed:\n{run.stdout}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
