"""The facts about a machine that a bug report needs: versions and devices, found without importing the libraries."""

import argparse
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, version

LIBRARIES = (
    *("torch", "trl", "transformers", "accelerate", "peft", "datasets", "vllm", "deepspeed", "triton"),
    *("wandb", "math-verify", "numpy", "pyarrow"),
)

VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "WANDB_MODE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
    *("ACCELERATE_USE_CPU", "WORLD_SIZE"),
)
"""Environment variables that are shown where they are set; none of them holds a secret."""

QUERY = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]


def environment() -> dict[str, str]:
    """Versions of the project, Python and the libraries, and the machine's devices, by name."""
    facts = {
        "tokenshift": _project(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "cores": _cores(),
        "accelerators": _accelerators(),
    }
    facts |= {library: _version(library) for library in LIBRARIES}
    return facts | {name: os.environ[name] for name in VARIABLES if name in os.environ}


def main(arguments: list[str] | None = None) -> int:
    """Print the environment.

    Args:
        arguments: The words after `tokenshift env`; `sys.argv`'s when None.

    Returns:
        Exit status 0; 2 after words that it does not take.
    """
    parser = argparse.ArgumentParser(
        prog="tokenshift env",
        description="Print versions and devices for a bug report. Nothing is imported, and no secret is shown.",
    )
    _, unused = parser.parse_known_args(arguments)
    if unused:
        print(f"tokenshift env: {unused[0]!r} belongs to no argument; leave it out.", file=sys.stderr)
        return 2
    for name, value in environment().items():
        print(f"{name:22}{value}")
    return 0


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _project() -> str:
    try:
        editable = '"editable": true' in (distribution("tokenshift").read_text("direct_url.json") or "")
    except PackageNotFoundError:
        return "not installed"
    return version("tokenshift") + (" (editable)" if editable else "")


def _cores() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{usable} of {os.cpu_count()}"


def _accelerators() -> str:
    """The devices that `nvidia-smi` shows; torch, which knows other devices too, would take seconds to import."""
    if shutil.which(QUERY[0]) is None:
        return "none found (no nvidia-smi)"
    try:
        answer = subprocess.run(QUERY, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "nvidia-smi does not answer"
    lines = [" ".join(line.split()) for line in answer.stdout.splitlines() if line.strip()]
    return "; ".join(lines) if answer.returncode == 0 and lines else "nvidia-smi finds none"
