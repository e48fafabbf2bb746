"""The results in a cell's folder, wherever its recipes left them."""

from pathlib import Path

from tokenshift.analysis.comparison.results import CellResult, read_cell
from tokenshift.recipes.command_line.products import LOG_HISTORY_FILE
from tokenshift.recipes.jobs.comparison.cells import CROSS_DIR, EVALUATION_DIR

REWARD_FUNC = "accuracy_reward"
"""The reward function of an evaluation that names none."""


def cell_result(variant: str, seed: int, folder: Path, reward_func: str = REWARD_FUNC) -> CellResult:
    """The results of a cell that is done.

    Args:
        variant, seed: The variant and the seed of the cell.
        folder: The cell's folder.
        reward_func: The reward function that judges the evaluation.

    Raises:
        ValueError: if there is no evaluation, or a file is damaged.
    """
    return read_cell(
        variant,
        seed,
        folder,
        responses=folder / EVALUATION_DIR / "responses",
        cross=folder / CROSS_DIR / "cross.json",
        log=folder / LOG_HISTORY_FILE,
        reward_func=reward_func,
    )
