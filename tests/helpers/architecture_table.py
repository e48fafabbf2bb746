"""The table of `docs/reference/architectures.md`: what each part does with every causal-LM architecture."""

import argparse
import logging
import re
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import torch
import transformers
import trl
from rich.progress import track

import tokenshift.analysis
from helpers.architecture_checks import CHECKS, Subject, WrongError, check_stock_training, subject_of
from helpers.architectures import ARCHITECTURES, NOT_BUILT
from tokenshift.analysis.storage.whole_file import write_whole

PROJECT = Path(tokenshift.analysis.__file__).parents[1]
RIGHT, REFUSED, STOCK, WRONG, FAILED = "right", "refused", "TRL fails", "WRONG", "FAILED"

VARYING = re.compile(r"'[A-Z]\w+' \([A-Z]\w+\)|\bx?[A-Z]\w*(?:LM|Model|Config)\w*|(?<=up to )[\d.e+-]+")
"""The parts of a reason that differ between architectures that share it."""


def verdict(name: str, subject: Subject) -> tuple[str, str]:
    """The outcome of a part for a pair of models: one of the five words, and the reason."""
    try:
        CHECKS[name](subject)
    except WrongError as error:
        return WRONG, str(error)
    except Exception as error:
        reason = " ".join(str(error).split())
        frame = traceback.extract_tb(error.__traceback__)[-1]
        if isinstance(error, ValueError) and PROJECT in Path(frame.filename).resolve().parents:
            return REFUSED, reason
        if "training" in name or name == "probe":
            try:
                check_stock_training(subject)
            except Exception as stock:
                if type(stock) is type(error):
                    return STOCK, f"{type(stock).__name__}: {' '.join(str(stock).split())}"
        return FAILED, f"{type(error).__name__}: {reason} ({Path(frame.filename).name}:{frame.lineno})"
    return RIGHT, ""


def verdicts(model_type: str) -> dict[str, tuple[str, str]]:
    """The verdict on each part, by its name."""
    with tempfile.TemporaryDirectory() as folder:
        subject = subject_of(model_type, Path(folder))
        return {name: verdict(name, subject) for name in CHECKS}


def quiet() -> None:
    """Keep the log free of what libraries say about tiny models."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    logging.disable(logging.ERROR)


def _page(rows: dict[str, dict[str, tuple[str, str]]], unbuilt: dict[str, str]) -> str:
    counts = Counter(word for cells in rows.values() for word, _ in cells.values())
    lines = [
        "# Architectures",
        "",
        "Each causal-LM architecture of transformers, as a tiny model with random weights in float32, against the "
        'model\'s own logits: one forward pass for each prefix, without padding and without a cache. "right": the '
        'same tokens, and log-probabilities and divergences within 1e-3 nats; "refused": ends in one line that says '
        "why, which the list below gives.",
        "",
        f"transformers {transformers.__version__}, TRL {trl.__version__}, torch {torch.__version__}, made by `make "
        "architectures`. " + ", ".join(f"{count} cells {word}" for word, count in counts.most_common()) + ".",
        "",
        "| architecture | " + " | ".join(CHECKS) + " |",
        "|---" * (len(CHECKS) + 1) + "|",
    ]
    lines += [f"| {name} | " + " | ".join(word for word, _ in cells.values()) + " |" for name, cells in rows.items()]
    lines += ["", "## Why", "", "Names of classes and sizes of differences, which vary, are left out (…).", ""]
    lines += [
        f"- {word}, {'; '.join(parts)}: {', '.join(names)}: {reason}"
        for (word, parts, reason), names in sorted(_reasons(rows).items())
    ]
    lines += ["", "## Not tried", ""]
    lines += [f"- {name}: {reason}" for name, reason in unbuilt.items()]
    return "\n".join(lines) + "\n"


def _reasons(rows: dict[str, dict[str, tuple[str, str]]]) -> dict[tuple[str, tuple[str, ...], str], list[str]]:
    """The architectures by verdict, the parts that it is given of, and the reason, where that is not "right"."""
    grouped: dict[tuple[str, tuple[str, ...], str], list[str]] = {}
    for name, cells in rows.items():
        parts_of: dict[tuple[str, str], list[str]] = {}
        for part, (word, reason) in cells.items():
            if word != RIGHT:
                parts_of.setdefault((word, VARYING.sub("…", reason)), []).append(part)
        for (word, reason), parts in parts_of.items():
            grouped.setdefault((word, tuple(parts), reason), []).append(name)
    return grouped


def main(words: Sequence[str] | None = None) -> int:
    """Make the table; the exit status is 1 if a cell is wrong or failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="the Markdown file")
    parser.add_argument("--only", nargs="+", default=list(ARCHITECTURES), help="model types")
    arguments = parser.parse_args(words)
    quiet()
    rows = {}
    for name in track([name for name in arguments.only if name not in NOT_BUILT], description="architectures"):
        start = perf_counter()
        rows[name] = verdicts(name)
        print(f"{name}: {perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        for part, (word, reason) in rows[name].items():
            if word in (WRONG, FAILED):
                print(f"{name}, {part}: {word}: {reason}", file=sys.stderr, flush=True)
    write_whole(arguments.output, _page(rows, NOT_BUILT))
    return int(any(word in (WRONG, FAILED) for cells in rows.values() for word, _ in cells.values()))


if __name__ == "__main__":
    sys.exit(main())
