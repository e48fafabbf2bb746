"""Reports a comparison to trackers: each cell's evaluation to the W&B run of its training, and the result."""

from collections.abc import Mapping, Sequence
from typing import Any

import wandb

from tokenshift.analysis.comparison.outcomes import AREAS, OUTCOMES
from tokenshift.analysis.comparison.results import OWN_TRAJECTORIES, CellResult, mean_accuracy
from tokenshift.analysis.storage.whole_file import write_whole
from tokenshift.analysis.storage.yaml_text import read_yaml
from tokenshift.recipes.command_line.products import RUN_ID_FILE
from tokenshift.recipes.command_line.run_record import CONFIG_FILE
from tokenshift.recipes.command_line.tracking import with_ends
from tokenshift.recipes.command_line.wandb_run import start_wandb
from tokenshift.recipes.jobs.comparison.cells import TRACKED_FILE, TRAINING_CONFIG_FILE, TrainedCell
from tokenshift.trainer.guard.trackers import tracker_errors_told


def log_evaluations(cells: Sequence[TrainedCell], results: Sequence[CellResult]) -> None:
    """Add `evaluation/*` to the W&B runs that do not have it yet; cells that were trained without W&B have no run.

    Args:
        cells: All cells.
        results: The results of the cells that are done.
    """
    by_cell = {(result.variant, result.seed): result for result in results}
    for cell in cells:
        result, id_file = by_cell.get((cell.variant.name, cell.seed)), cell.folder / RUN_ID_FILE
        if result is None or not id_file.is_file():
            continue
        run_id, done = id_file.read_text().strip(), cell.folder / TRACKED_FILE
        if done.is_file() and done.read_text().strip() == run_id:
            continue
        files = (cell.folder / TRAINING_CONFIG_FILE, cell.folder / CONFIG_FILE)  # as cells made before have it
        file = next(file for file in files if file.is_file())
        config = read_yaml(file)
        run = start_wandb(
            cell.folder,
            project=config.get("wandb_project", "tokenshift"),
            entity=config.get("wandb_entity"),
            group=config["wandb_group"],
            name=config["run_name"],
            config={},
            resume=True,
        )
        numbers = {"evaluation/accuracy": mean_accuracy(result.correct)}
        for name, correct in result.correct.items():
            numbers[f"evaluation/accuracy/{name}"] = mean_accuracy({name: correct})
        numbers |= {f"evaluation/{name}": value for name, value in result.shift.get(OWN_TRAJECTORIES, {}).items()}
        areas = {name: OUTCOMES[name].number(result) for name in AREAS}
        numbers |= {f"evaluation/{name}": value for name, value in areas.items() if value is not None}
        if result.recovery is not None:
            numbers["evaluation/recovery"] = result.recovery["value"]
        with tracker_errors_told("wandb"):
            run.summary.update(numbers)
            wandb.finish()
            write_whole(done, run_id + "\n")


RESULTS = (*(outcome.key for outcome in OUTCOMES.values()), "reward")
"""The numbers of a variant that trackers get, as far as a comparison has them."""


def comparison_numbers(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """The result of a comparison: `VARIANT/NAME`, and `VARIANT/difference/NAME` from the baseline with its p-value.

    Args:
        summary: The numbers of `comparison_summary`.

    Returns:
        Each number with the ends of its 95 % interval as `NAME_low` and `NAME_high`, and the p-value of a difference,
        corrected by Holm's method, as `NAME_p_holm`; those of the replication seeds begin with `replication/`.
    """
    numbers: dict[str, float | None] = {}
    for start, of_seeds in (("", summary), ("replication/", summary["replication"])):
        for row in of_seeds["variants"] if of_seeds else ():
            for name in RESULTS:
                if name not in row:
                    continue
                numbers |= with_ends(f"{start}{row['variant']}/{name}", row[name])
                if (difference := row[name]["difference"]) is not None:
                    name_of_difference = f"{start}{row['variant']}/difference/{name}"
                    numbers |= with_ends(name_of_difference, {**difference, "value": difference["difference"]})
                    numbers[f"{name_of_difference}_p_holm"] = difference["p_holm"]
    return numbers
