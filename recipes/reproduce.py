"""Does the publication hold here? Every arm trained over seeds, analyzed, and set beside each published figure.

    python recipes/reproduce.py --dry_run                       # the commands, and what they take
    python recipes/reproduce.py --parallel 2                    # --scale pocket: an hour or less on 2 CPU cores
    python recipes/reproduce.py --scale smollm2 --seeds 0 1 2
    python recipes/reproduce.py --seeds 3 4 5 --output_dir outputs/again --against outputs/reproduce_pocket
    python recipes/reproduce.py --scale paper --dry_run         # for a cluster

Arms are DAPO, its high-KL and low-KL boosts, SimpleRL, and an SFT control, each with every seed. Trainings, shifts,
evolution over checkpoints, robustness and cross-sampling are made by the other recipes, as processes of their own, as
`recipes/configs/reproduce_SCALE.yaml` says. `output_dir` gets `reproduction.html` and `reproduction.json`: statement
by statement the published figure, ours with its interval, and the verdict over seeds; and a folder for each part.
Started again after a stop it goes on where it was; with more seeds it makes those alone. Exit status 1: a part failed.
"""

from tokenshift.recipes.command_line.start import start_script

if __name__ == "__main__":
    start_script(__file__)  # answers --help and wrong arguments before the imports below, which take seconds

import sys
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tokenshift.recipes.command_line.console import console, duration
from tokenshift.recipes.command_line.entry import LateMistakeError, run_guarded
from tokenshift.recipes.command_line.products import REPRODUCTION_FILE
from tokenshift.recipes.command_line.tracking import report_analysis
from tokenshift.recipes.jobs.reproduction.arguments import ReproduceJob, prepare, settings_of
from tokenshift.recipes.jobs.reproduction.page import PAGE_FILE, write_reproduction
from tokenshift.recipes.jobs.reproduction.parts import SCRIPTS, Scripts
from tokenshift.recipes.jobs.reproduction.plan import plan_lines
from tokenshift.recipes.jobs.reproduction.run import run_parts
from tokenshift.recipes.jobs.reproduction.tracking import reproduction_numbers


def run(job: ReproduceJob, scripts: Scripts = SCRIPTS) -> None:
    """Run the parts, then write and show the rows."""
    if job.args.dry_run:
        for line in plan_lines(job):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    try:
        run_parts(job.parts, job.folder, job.parallel, console, scripts)
        record = write_reproduction(job)
    except ValueError as error:  # a damaged file
        raise LateMistakeError(str(error)) from error
    show(record)
    for part in job.parts:
        if part.failure is not None:
            console.print(f"{part.name} failed: {part.failure} ({part.log})", markup=False, soft_wrap=True)
    for name in (PAGE_FILE, REPRODUCTION_FILE):
        console.print(f"{name:18} {job.folder / name}", soft_wrap=True, highlight=False)
    title, logs = f"reproduction of {job.name}", [(0, reproduction_numbers(record))]
    report_analysis(job.args, "reproduction", logs, title, folder=job.folder, recorded=settings_of(job))


def show(record: dict[str, Any]) -> None:
    """Print the verdict on each statement, and the time of all parts."""
    table = Table(title="verdicts", title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name, ratio in (("§", None), ("arm", None), ("statement", 3), ("verdict", 2)):
        table.add_column(name, overflow="fold", ratio=ratio)
    together = {one["id"]: one["verdict"] for one in record["agreements"] or ()}
    for row in record["rows"]:
        table.add_row(str(row["section"]), row["arm"], row["statement"], together.get(row["id"], row["verdict"]))
    console.print(table)
    seconds = sum(part["seconds"] for part in record["parts"])
    console.print(f"All parts took {duration(seconds)}, added up.", highlight=False)


def main(arguments: list[str] | None = None, scripts: Scripts = SCRIPTS) -> int:
    """Exit status: 0; 1 if some part failed; 2 after a user's mistake; 130 after Ctrl-C, 143 after SIGTERM."""
    jobs: list[ReproduceJob] = []

    def start(job: ReproduceJob) -> None:
        jobs.append(job)
        run(job, scripts)

    status = run_guarded(__file__, lambda: prepare(arguments), start)
    return status or int(any(part.state in ("failed", "left out") for job in jobs for part in job.parts))


if __name__ == "__main__":
    sys.exit(main())
