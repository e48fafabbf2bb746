"""The table of engines and kinds of training: what is run, what is measured of it, and how it is shown."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distributed.cells import HELD_OUT_SIZE, TRAIN_SIZE, training
from distributed.comparison import (
    OF_A_START,
    differences,
    largest_by_column,
    largest_difference,
    logits_of_saved,
    saved_weights,
    share_apart,
)
from distributed.jobs import TITLES, missing, run_jobs
from distributed.stored_rollouts import make_store

ONE = "one"

COLUMNS = ("loss", "metrics", "of few", "weights", "apart", "saved", "resume")
"""Figures of a cell."""

TOLERANCES = {
    "loss": 1e-5,
    "metrics": 5e-5,
    "of few": 1e-3,
    "weights": 1e-4,
    "apart": 1e-3,
    "saved": 1e-6,
    "resume": 0.0,
}
"""The largest figures that are allowed.

Beyond 1e-5 are those in which rounding is made large, as the same training with more padding (`padded`) shows: each
process pads its own prompts on the left, and positions that are shifted together give the same attention but for
rounding.
A divergence of near distributions changes relatively by twice what a logit's difference changes by, and few tokens do
not average it out: `of few`, and to some degree the mean of a divergence, which the largest tokens make. AdamW's step
is the learning rate times a gradient over its own size, so that where a gradient is near zero the rounding of it
decides: `weights`, of which few are `apart`.
"""


APART = 1e-5
"""Weights that differ by more count as apart."""


@dataclass
class Cell:
    """A cell of the table.

    Attributes:
        variant, engine: The kind of training, and what it runs on.
        figures: Column -> figure; what was not measured is not there.
        largest: Column -> the logged number that has the figure, in words.
        cpu_seconds: Of the training, over its processes.
        fault: Why there are no figures; None if there are.
        skipped: Why the cell was not run on this machine; None if it was.
    """

    variant: str
    engine: str
    figures: dict[str, float] = field(default_factory=dict)
    largest: dict[str, str] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    fault: str | None = None
    skipped: str | None = None

    @property
    def excesses(self) -> list[str]:
        """The figures that are too large, in words."""
        return [
            f"{column} {figure:.1e} > {TOLERANCES[column]:g}"
            + (f" ({self.largest[column]})" if column in self.largest else "")
            for column, figure in self.figures.items()
            if not figure <= TOLERANCES[column]
        ]

    @property
    def is_right(self) -> bool:
        return self.skipped is not None or (self.fault is None and not self.excesses)

    def row(self) -> str:
        """The cell as a line of at most 80 columns."""
        name = f"{self.variant:14}{TITLES[self.engine]:8}"
        if self.skipped or self.fault:
            return f"{name}{self.skipped or self.fault}"[:80]
        shown = (f"{self.figures[column]:8.0e}" if column in self.figures else f"{'-':>8}" for column in COLUMNS)
        return name + "".join(shown)


HEADER = f"{'training':14}{'engine':8}" + "".join(f"{column:>8}" for column in COLUMNS)


def run_table(
    cells: Sequence[tuple[str, str]],
    resumed: Sequence[tuple[str, str]],
    folder: Path,
    show: Callable[[Cell], None] = lambda cell: None,
) -> list[Cell]:
    """Run trainings on one process and under engines, and compare each with the one on one process.

    Args:
        cells: Variant and engine of each cell; `one` compares a saved model and a resume with the training itself.
        resumed: Those that are resumed from their first checkpoint too.
        folder: An empty folder for what the trainings leave.
        show: Called with each cell when its engine's runs are over.

    Returns:
        The cells, engine by engine.

    Raises:
        RuntimeError: If a launch fails before its runs.
    """
    store = folder / "store.json"
    make_store(store, TRAIN_SIZE, HELD_OUT_SIZE)
    engines = [ONE, *dict.fromkeys(engine for _, engine in cells if engine != ONE)]
    compared = [variant for variant, engine in cells if engine == ONE or missing(engine) is None]
    table = []
    for engine in engines:
        wanted = [variant for variant, other in cells if other == engine]
        if reason := missing(engine):
            table += [Cell(variant, engine, skipped=reason) for variant in wanted]
        else:
            run = list(dict.fromkeys(compared)) if engine == ONE else wanted
            jobs = [training(variant, engine, folder, store) for variant in run]
            goes_on = [variant for variant in run if (variant, engine) in resumed]
            again = [training(variant, engine, folder, store, resumed=True) for variant in goes_on]
            run_jobs(engine, [*jobs, *again], folder)
            table += [_cell(variant, engine, folder, store, (variant, engine) in resumed) for variant in wanted]
        for cell in table[len(table) - len(wanted) :]:
            show(cell)
    return table


def _cell(variant: str, engine: str, folder: Path, store: Path, resumed: bool) -> Cell:
    """The cell, when its runs are over."""
    reference, job = training(variant, ONE, folder, store), training(variant, engine, folder, store)
    again = training(variant, engine, folder, store, resumed=True) if resumed else None
    for each in (reference, job, again):
        if each is not None and (failure := each.failure()):
            return Cell(variant, engine, fault=f"{Path(each.folder).name}: {failure}")
    cell, run = Cell(variant, engine, cpu_seconds=job.cpu_seconds()), Path(job.folder)
    if engine != ONE:
        largest = largest_by_column(differences(Path(reference.folder), run))
        cell.figures = {column: difference.relative for column, difference in largest.items()}
        cell.largest = {column: str(difference) for column, difference in largest.items()}
        weights = saved_weights(Path(reference.folder)), saved_weights(run)
        cell.figures["weights"] = largest_difference(*weights)
        if cell.figures["weights"] < math.inf:
            cell.figures["apart"] = share_apart(*weights, APART)
    cell.figures["saved"] = logits_of_saved(run)
    if again is not None:
        resumed_run = Path(again.folder)
        logs = [each.relative for each in differences(run, resumed_run) if each.name not in OF_A_START]
        cell.figures["resume"] = max(*logs, largest_difference(saved_weights(run), saved_weights(resumed_run)))
    return cell
