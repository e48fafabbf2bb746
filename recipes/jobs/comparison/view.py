"""The live table of a comparison: a row a variant, a column a seed; lines where there is no terminal."""

import time
from collections.abc import Sequence
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tokenshift.recipes.jobs.comparison.cells import TrainedCell

SHORT = {"waiting": "·", "evaluation": "evaluating", "recovery": "recovery"}
STYLES = {"waiting": "dim", "failed": "bold red", "done": "green"}


def shown_state(cell: TrainedCell) -> str:
    """A cell's state in a few letters: its updates in training, its accuracy when it is done."""
    if cell.phase == "training":
        updates = cell.updates()
        return f"{updates[0]}/{updates[1]}" if updates else "starting"
    if cell.phase == "done":
        return "done" if cell.accuracy is None else f"{cell.accuracy:.3f}"
    return SHORT.get(cell.phase, cell.phase)


def seconds_left(cells: Sequence[TrainedCell], parallel: int) -> float | None:
    """Estimated seconds until all are done, from what finished cells took; from a training's pace before there is one.

    None where nothing is known yet.
    """
    finished = [cell.seconds() for cell in cells if cell.phase == "done" and cell.seconds() > 0]
    running = [cell for cell in cells if cell.phase not in ("waiting", "done", "failed")]
    now = time.monotonic()
    if finished:
        each = sum(finished) / len(finished)
    else:
        paces = []
        for cell in running:
            updates = cell.updates() if cell.phase == "training" else None
            if updates and updates[0]:
                paces.append((now - cell.started) * updates[1] / updates[0])
        if not paces:
            return None
        each = sum(paces) / len(paces)
    waiting = sum(cell.phase == "waiting" for cell in cells)
    left = waiting * each + sum(max(0.0, each - cell.seconds() - (now - cell.started)) for cell in running)
    return left / parallel


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return (
        f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"
    )


class ComparisonView:
    """Shows cells while they are worked on; use it as a context, and call `refresh` now and then.

    Args:
        cells: all.
        parallel: cells at once.
        console: where to.
    """

    def __init__(self, cells: Sequence[TrainedCell], parallel: int, console: Console) -> None:
        self._cells, self._parallel, self._console = cells, parallel, console
        self._started = time.monotonic()
        self._said: dict[str, str] = {}
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> "ComparisonView":
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refresh()
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def refresh(self) -> None:
        """Draw the table again; without a terminal, a line for each cell that has gone on."""
        if self._live is not None:
            self._live.update(self.table(), refresh=True)
            return
        for cell in self._cells:
            if cell.phase != self._said.get(cell.name, "waiting"):
                self._said[cell.name] = cell.phase
                state = f"{cell.accuracy:.3f} correct" if cell.phase == "done" and cell.accuracy is not None else ""
                said = f"failed, {cell.failure}" if cell.failure else state or cell.phase
                done = sum(each.phase in ("done", "failed") for each in self._cells)
                tail = f"  ({done} of {len(self._cells)} cells, {self._times()})" if cell.phase == "done" else ""
                line = f"{cell.name:28} {said}{tail}"
                self._console.print(line, soft_wrap=True, markup=False, highlight=False)

    def _times(self) -> str:
        elapsed = duration(time.monotonic() - self._started)
        left = seconds_left(self._cells, self._parallel)
        return f"{elapsed} elapsed" + ("" if left is None else f", about {duration(left)} left")

    def table(self) -> Table:
        """The table as it is now."""
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
        by_place = {(cell.variant.name, cell.seed): cell for cell in self._cells}
        for variant in dict.fromkeys(cell.variant.name for cell in self._cells):
            row = []
            for seed in seeds:
                cell = by_place[variant, seed]
                style = STYLES.get(cell.phase, "yellow")
                row.append(f"[{style}]{shown_state(cell)}[/{style}]")
            table.add_row(variant, *row)
        return table
