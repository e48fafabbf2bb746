"""A small comparison of two variants, and recipes that do next to nothing."""

from pathlib import Path

from tokenshift.recipes.jobs.comparison.arguments import CompareJob, prepare
from tokenshift.recipes.jobs.comparison.cells import Scripts

ROOT = Path(__file__).parent.parent.parent
FAKE = str(ROOT / "tests" / "helpers" / "fake_recipes.py")
SCRIPTS: Scripts = {"training": [FAKE, "training"], "evaluation": [FAKE, "evaluation"], "recovery": [FAKE, "none"]}

FILE = """\
config: pocket
overrides:
  max_steps: 4
seeds: [0, 1]
baseline: dapo
variants:
  dapo:
  high_kl:
evaluation:
  datasets: [pocket]
  size: 6
"""


def job_of(path: Path, *more: str) -> CompareJob:
    """A comparison ready to begin, with its output beside the file."""
    return prepare(["--config", str(path), "--output_dir", str(path.parent / "out"), *more])


def launches(path: Path) -> list[str]:
    """The launches of the fake recipes, in order."""
    return (path.parent / "out" / "launches.txt").read_text().split("\n")[:-1]
