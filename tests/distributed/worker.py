"""One process of a launch: imports everything once, then forks for each run of a list.

    accelerate launch --config_file ... tests/distributed/worker.py JOBS.json

Each run's processes form a group of their own, by a port of their own, so that a run finds nothing of the last one.
"""

import importlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from distributed.jobs import JOB_SECONDS
from distributed.stored_rollouts import use_store

LOGITS_FILE = "trained_logits.pt"
"""File of a training's folder with the policy's logits at its end, before it is saved."""

CHECKED_TOKENS = [[index % 17 + 3 for index in range(row, row + 24)] for row in range(2)]
"""Token ids `(2, 24)` whose logits are compared."""

NOT_RESUMED = ("model", "summary.json", "log_history.json", "trained_logits.pt")
"""Files that a run writes at its end, and that a resumed run writes itself."""


def keep_logits() -> None:
    """Let the training recipe write the logits of the trained policy, as it lies on the engine, before it is saved."""
    import torch

    recipe: Any = importlib.import_module("tokenshift.recipes.grpo_divweighted")
    save = recipe.save_whole_model

    def saved(trainer: Any, folder: Path, *others: Any) -> None:
        trainer.model_wrapped.eval()
        with torch.no_grad():
            logits = trainer.model_wrapped(input_ids=torch.tensor(CHECKED_TOKENS)).logits
        if trainer.accelerator.is_main_process:
            torch.save(logits.float().clone(), folder.parent / LOGITS_FILE)
        save(trainer, folder, *others)

    recipe.save_whole_model = saved


def resumable_copy(run: Path, copy: Path) -> None:
    """Copy a run's folder as it was at its first checkpoint, as far as a resume looks at it."""
    _, *later = sorted(run.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns(*NOT_RESUMED, *(path.name for path in later)))


def run_job(job: dict[str, Any]) -> int:
    """In the forked process: its exit status."""
    if job["store"] is not None:
        use_store(Path(job["store"]), job["micro_steps"])
    if job["recipe"] == "grpo_divweighted":
        keep_logits()
    module: Any = importlib.import_module(f"tokenshift.recipes.{job['recipe']}")
    resume = ["--resume_from_checkpoint", "true"] if job["resumes"] else []
    sys.argv = [module.__file__, "--output_dir", job["folder"], *job["words"], *resume]
    try:
        status: int = module.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    return status


def forked(job: dict[str, Any], rank: int) -> dict[str, float]:
    """Run it in a process of its own, whose output goes to a file; its exit status and its seconds on the CPU."""
    if job["resumes"] and len(list(Path(job["resumes"]).glob("checkpoint-*"))) < 2:
        Path(f"{job['folder']}.{rank}.txt").write_text("the run to go on from left too few checkpoints\n")
        return {"status": 1, "cpu_seconds": 0.0}
    if job["resumes"] and rank == 0:
        resumable_copy(Path(job["resumes"]), Path(job["folder"]))
    pid = os.fork()
    if not pid:
        os.setsid()
        output = os.open(f"{job['folder']}.{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ["MASTER_PORT"] = str(job["port"])
        os.environ.pop(
            "TORCHELASTIC_USE_AGENT_STORE", None
        )  # the launcher's store, in which older runs have their keys
        status = run_job(job)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    deadline = time.monotonic() + JOB_SECONDS
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return {"status": os.waitstatus_to_exitcode(status), "cpu_seconds": usage.ru_utime + usage.ru_stime}
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.02)


def main(file: str) -> None:
    """Run the list's jobs."""
    listed = json.loads(Path(file).read_text())
    if listed["fsdp_on_cpu"]:
        importlib.import_module("helpers.fsdp_on_cpu")
    drawing: Any = importlib.import_module("matplotlib.figure")
    drawing.Figure.savefig = lambda self, file, **options: Path(file).write_bytes(b"")  # figures are not compared
    for recipe in {job["recipe"] for job in listed["jobs"]}:
        importlib.import_module(f"tokenshift.recipes.{recipe}")
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        importlib.import_module("deepspeed")
    rank = int(os.environ.get("RANK", "0"))
    for job in listed["jobs"]:
        Path(f"{job['folder']}.{rank}.status").write_text(json.dumps(forked(job, rank)))


if __name__ == "__main__":
    main(sys.argv[1])
