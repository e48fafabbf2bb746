"""Runs the cells of a comparison, several at once, and stops them all when the comparison is stopped."""

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from pathlib import Path

from rich.console import Console

from tokenshift.recipes.command_line.child_processes import Children, Stopped, shares, stoppable_pool
from tokenshift.recipes.jobs.comparison.cells import SCRIPTS, Scripts, TrainedCell, run_cell
from tokenshift.recipes.jobs.comparison.file import Comparison
from tokenshift.recipes.jobs.comparison.view import ComparisonView

REFRESH = 0.5
"""Seconds between two updates of the live table."""


def run_comparison(
    cells: Sequence[TrainedCell],
    comparison: Comparison,
    accuracy: Callable[[Path], float],
    console: Console,
    scripts: Scripts = SCRIPTS,
) -> None:
    """Run what is left to do of all cells, in order; cells that fail do not stop the others.

    Ctrl-C and SIGTERM stop the running recipes by SIGINT, so that trainings end with a checkpoint, and the function
    waits for them; a second Ctrl-C ends them at once.

    Args:
        cells: All cells.
        comparison: The comparison that the cells belong to.
        accuracy: Reads the trained model's accuracy from the folder of an evaluated cell.
        console: The console that the live table is shown on.
        scripts: The script that is launched for each step.

    Raises:
        KeyboardInterrupt: if the comparison was stopped.
    """
    children, parallel = Children(), comparison.parallel
    environments: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    for share in shares(parallel):
        environments.put(share)

    def work(cell: TrainedCell) -> None:
        environment = environments.get()
        try:
            run_cell(cell, comparison, children, environment, accuracy, scripts)
        except Stopped:
            cell.enter("waiting")
        finally:
            environments.put(environment)

    with stoppable_pool(children, parallel, console) as pool, ComparisonView(cells, parallel, console) as view:
        left: set[Future[None]] = {pool.submit(work, cell) for cell in cells}
        while left:
            finished, left = wait(left, timeout=REFRESH, return_when=FIRST_EXCEPTION)
            for future in finished:
                future.result()
            view.refresh()
