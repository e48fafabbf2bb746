"""The live table of a comparison: one row per variant, one column per seed; lines where there is no terminal."""

import time
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tokenshift.recipes.command_line.console import duration
from tokenshift.recipes.command_line.live_view import LiveView
from tokenshift.recipes.jobs.comparison.cells import TrainedCell

PHASE_WORDS = {"waiting": "·", "evaluation": "evaluating"}
PHASE_STYLES = {"waiting": "dim", "failed": "bold red", "done": "green"}


def shown_state(cell: TrainedCell) -> str:
    """A cell's state in a few letters: how many updates its training has made, or its accuracy once it is done."""
    if cell.phase == "training":
        updates = cell.updates()
        return f"{updates[0]}/{updates[1]}" if updates else "starting"
    if cell.phase == "done":
        return "done" if cell.accuracy is None else f"{cell.accuracy:.3f}"
    return PHASE_WORDS.get(cell.phase, cell.phase)


def seconds_left(cells: Sequence[TrainedCell], parallel: int) -> float | None:
    """The estimated seconds until all cells are done: from the seconds that finished cells took, or, before a cell is
    finished, from the pace of running trainings.

    Args:
        cells: All cells.
        parallel: The number of cells at once.

    Returns:
        None where nothing is known yet.
    """
    finished = [cell.seconds() for cell in cells if cell.phase == "done" and cell.seconds() > 0]
    running = [cell for cell in cells if cell.phase not in ("waiting", "done", "failed")]
    now = time.monotonic()
    if finished:
        per_cell = sum(finished) / len(finished)
    else:
        paces = []
        for cell in running:
            updates = cell.updates() if cell.phase == "training" else None
            if updates and updates[0]:
                paces.append((now - cell.started) * updates[1] / updates[0])
        if not paces:
            return None
        per_cell = sum(paces) / len(paces)
    waiting = sum(cell.phase == "waiting" for cell in cells)
    left = waiting * per_cell
    left += sum(max(0.0, per_cell - cell.seconds() - (now - cell.started)) for cell in running)
    return left / parallel


class ComparisonView(LiveView):
    """Shows cells while they are worked on.

    Args:
        cells: All cells.
        parallel: The number of cells at once.
        console: The console that the table is shown on.
    """

    def __init__(self, cells: Sequence[TrainedCell], parallel: int, console: Console) -> None:
        super().__init__(console)
        self._cells, self._parallel = cells, parallel
        self._started = time.monotonic()
        self._shown_phases: dict[str, str] = {}

    def _print_changes(self) -> None:
        """Print a line for each cell that has entered another phase."""
        for cell in self._cells:
            if cell.phase != self._shown_phases.get(cell.name, "waiting"):
                self._shown_phases[cell.name] = cell.phase
                state = f"{cell.accuracy:.3f} correct" if cell.phase == "done" and cell.accuracy is not None else ""
                said = f"failed, {cell.failure}" if cell.failure else state or cell.phase
                done = sum(other.phase in ("done", "failed") for other in self._cells)
                tail = f"  ({done} of {len(self._cells)} cells, {self._times()})" if cell.phase == "done" else ""
                self._print(f"{cell.name:28} {said}{tail}")

    def _times(self) -> str:
        elapsed = duration(time.monotonic() - self._started)
        left = seconds_left(self._cells, self._parallel)
        return f"{elapsed} elapsed" + ("" if left is None else f", about {duration(left)} left")

    def table(self) -> Table:
        """The table in its present state."""
        seeds = list(dict.fromkeys(cell.seed for cell in self._cells))
        done = sum(cell.phase == "done" for cell in self._cells)
        table = Table(
            title=f"{done} of {len(self._cells)} cells, {self._times()}",
            title_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
        )
        table.add_column("variant", no_wrap=True)
        for seed in seeds:
            table.add_column(f"seed {seed}", justify="right", no_wrap=True)
        by_name = {(cell.variant.name, cell.seed): cell for cell in self._cells}
        for variant in dict.fromkeys(cell.variant.name for cell in self._cells):
            row = []
            for seed in seeds:
                cell = by_name[variant, seed]
                style = PHASE_STYLES.get(cell.phase, "yellow")
                row.append(f"[{style}]{shown_state(cell)}[/{style}]")
            table.add_row(variant, *row)
        return table
