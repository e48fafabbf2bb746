"""CPU time that a user waits for before anything happens: `--help`, a wrong argument, the imports.

Every command line runs in a process of its own, and all run in turn in each round, with `python -c pass` and
`python -c "import torch"` as measures.
"""

import resource
import subprocess
import sys
from collections.abc import Sequence

from rich.progress import track

from tokenshift.recipes.command_line.commands import COMMANDS

PYTHON = "python -c pass"
TORCH = "python -c 'import torch'"
TOKENSHIFT = (sys.executable, "-m", "tokenshift.recipes.command_line.command")


def command_lines() -> dict[str, list[str]]:
    """The command lines that are timed, by the name that is shown."""
    lines = {
        PYTHON: [sys.executable, "-c", "pass"],
        TORCH: [sys.executable, "-c", "import torch"],
        "import tokenshift.analysis.divergence": [sys.executable, "-c", "import tokenshift.analysis.divergence"],
        "tokenshift --help": [*TOKENSHIFT, "--help"],
    }
    lines |= {f"tokenshift {name} --help": [*TOKENSHIFT, name, "--help"] for name in COMMANDS}
    lines["tokenshift train --help all"] = [*TOKENSHIFT, "train", "--help", "all"]
    lines |= {
        f"tokenshift {name}, a wrong argument": [*TOKENSHIFT, name, "--no_such_argument", "1"]
        for name, command in COMMANDS.items()
        if command.arguments
    }
    lines["tokenshift train, a config that is not there"] = [*TOKENSHIFT, "train", "--config", "no_such_config"]
    lines["tokenshift train, a word for a number"] = [*TOKENSHIFT, "train", "--max_steps", "many"]
    return lines


def cpu_seconds(words: Sequence[str]) -> float:
    """User and system time of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def startup_times(rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each command line in each round; one more round before them fills the caches of files."""
    lines = command_lines()
    times: dict[str, list[float]] = {name: [] for name in lines}
    for number in track(range(rounds + 1), "startup", transient=True):
        for name, words in lines.items():
            taken = cpu_seconds(words)
            if number:
                times[name].append(taken)
    return times
