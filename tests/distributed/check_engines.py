"""Compare trainings and analyses on several processes with the same ones on one process.

    python tests/distributed/check_engines.py                              # the whole table
    python tests/distributed/check_engines.py --engines zero3 --variants LoRA k3
    python tests/distributed/check_engines.py --diagonal --json figures.json

Each training takes stored completions, so that all make the same updates. `loss`, `metrics` (whatever is logged) and
`of few` (of that percentiles, extremes, means of few tokens) are relative differences, `weights` and `saved` absolute
ones, of the final parameters and of the logits of the saved model, which plain transformers loads, from those at the
end of the training. `apart` is the share of parameters that differ by more than 1e-5. `resume` is what a run that goes
on from the first checkpoint, inside a generation, differs by from the run itself. `padded` is one process that pads
further: what rounding alone makes. Exit status: 0 if all is within its tolerance.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from distributed.analyses import ANALYSIS_TOLERANCE, run_analyses
from distributed.cells import DIAGONAL, RESUMED, VARIANTS
from distributed.jobs import ENGINES
from distributed.table import COLUMNS, HEADER, TOLERANCES, Cell, run_table

LIBRARIES = ("torch", "trl", "transformers", "accelerate", "deepspeed", "peft")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES), help="Those alone.")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="Those alone.")
    parser.add_argument("--diagonal", action="store_true", help="The cells that the tests look at.")
    parser.add_argument("--no_analyses", action="store_true", help="Trainings alone.")
    parser.add_argument("--json", type=Path, help="Write the figures to this file.")
    parser.add_argument("--keep", type=Path, help="Keep what the runs leave in this folder, which must be empty.")
    return parser.parse_args()


def show(cell: Cell) -> None:
    print(cell.row(), flush=True)


def main() -> int:
    arguments, started = parse(), time.monotonic()
    cells = [(variant, engine) for engine in arguments.engines for variant in arguments.variants]
    resumed = [(variant, engine) for variant, engine in cells if engine != "padded"]
    if arguments.diagonal:
        cells, resumed = list(DIAGONAL), list(RESUMED)
    if arguments.keep and arguments.keep.exists() and any(arguments.keep.iterdir()):
        print(f"--keep={arguments.keep} is not empty.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.keep or temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        print(HEADER, flush=True)
        table = run_table(cells, resumed, folder, show)
        limits = "".join(f"{TOLERANCES[column]:8.0e}" for column in COLUMNS)
        print(f"{'allowed':22}{limits}")
        analyses = [] if arguments.no_analyses else run_analyses(folder)
    for name, figure, file in analyses:
        print(f"{name} on two processes: largest difference {figure:.1e} ({file})")
    faults = [f"{cell.variant}, {cell.engine}: {cell.fault}" for cell in table if cell.fault]
    faults += [f"{cell.variant}, {cell.engine}: {excess}" for cell in table for excess in cell.excesses]
    faults += [f"{name}: {figure:.1e} ({file})" for name, figure, file in analyses if figure > ANALYSIS_TOLERANCE]
    seconds = time.monotonic() - started
    if arguments.json:
        content = {
            "cells": [asdict(cell) for cell in table],
            "analyses": [{"name": name, "figure": figure, "file": file} for name, figure, file in analyses],
            "tolerances": TOLERANCES,
            "versions": {name: version(name) for name in LIBRARIES if find_spec(name)},
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "seconds": round(seconds),
        }
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{len(table)} trainings, {len(analyses)} analyses, {seconds:.0f} s; {len(faults)} faults")
    for fault in faults:
        print(fault)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
