"""Which way of training is best, and does it move other tokens? Variants x seeds, trained, evaluated, compared.

    python recipes/compare_variants.py --dry_run                # the cells, and what they take by a measured step
    python recipes/compare_variants.py                          # recipes/configs/compare_pocket.yaml
    python recipes/compare_variants.py --config mine.yaml --output_dir outputs/mine --parallel 2
    python recipes/compare_variants.py --plan outputs/mine --effect 2   # how many seeds show 2 points

The YAML names a training config, variants (each a set of overrides), seeds, and what models are evaluated on; `launch`
names an accelerate config for it. Each cell is trained by `grpo_divweighted.py`, evaluated by `evaluate.py`, and, if
wanted, cross-sampled by `cross_sample.py`, as processes of their own; a crashed one is tried once more. `output_dir`
gets `comparison.html`, `.md`, `.csv`, `.json`, `figures/` and `cells/`; W&B a group with one run per cell. Started
again after a stop it goes on where it was; with more variants or seeds it makes those alone. Exit status 1: a cell
failed.
"""

from tokenshift.recipes.command_line.start import start_script

if __name__ == "__main__":
    start_script(__file__)  # answers --help and wrong arguments before the imports below, which take seconds

import sys
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tokenshift.analysis.comparison.coverage import ENOUGH_SEEDS, WANTED_COVERAGE
from tokenshift.analysis.comparison.outcomes import FINAL_ACCURACY, OUTCOMES
from tokenshift.analysis.comparison.planning import MOST_SEEDS
from tokenshift.analysis.comparison.report import (
    WRITTEN,
    accuracy_table,
    outcome_table,
    remarks,
    verdict_lines,
    write_comparison,
)
from tokenshift.analysis.comparison.results import CellResult, mean_accuracy, problem_accuracies
from tokenshift.analysis.comparison.summary import comparison_summary
from tokenshift.recipes.command_line.console import console, duration
from tokenshift.recipes.command_line.entry import run_guarded
from tokenshift.recipes.command_line.tracking import report_analysis
from tokenshift.recipes.jobs.comparison.arguments import (
    CompareJob,
    PlanJob,
    prepare_plan_or_comparison,
    settings_of,
)
from tokenshift.recipes.jobs.comparison.cell_results import REWARD_FUNC, cell_result
from tokenshift.recipes.jobs.comparison.cells import EVALUATION_DIR, SCRIPTS, Scripts, TrainedCell
from tokenshift.recipes.jobs.comparison.cost import measured_cost
from tokenshift.recipes.jobs.comparison.doses import doses_of
from tokenshift.recipes.jobs.comparison.plan import Plan
from tokenshift.recipes.jobs.comparison.run import run_comparison
from tokenshift.recipes.jobs.comparison.tracking import comparison_numbers, log_evaluations

COMPARISON_FILES = (*WRITTEN, "cells")
"""Files of a comparison that are named at the end."""


def run(job: CompareJob, scripts: Scripts = SCRIPTS) -> None:
    """Run the cells, then write and show the results."""
    if job.args.dry_run:
        show_cells(job, scripts)
        return
    run_comparison(job.cells, job.comparison, accuracy_of, console, scripts)
    results = []
    reward_func = str(job.comparison.evaluation.get("reward_func", REWARD_FUNC))
    for cell in job.cells:
        if cell.accuracy is not None:
            try:
                results.append(result_of(cell, reward_func))
            except (ValueError, OSError, KeyError) as error:  # whatever a damaged file raises
                cell.failure = f"its files cannot be read: {' '.join(str(error).split())}"
    failures = {cell.name: cell.failure for cell in job.cells if cell.failure is not None}
    summary = summary_of(job, results)
    write_comparison(job.folder, summary, results, failures)
    show_comparison(summary, failures)
    for name in COMPARISON_FILES:
        console.print(f"{name:16} {job.folder / name}", soft_wrap=True, highlight=False)
    log_evaluations(job.cells, results)
    name, logs = f"comparison {job.comparison.name}", [(0, comparison_numbers(summary))]
    report_analysis(job.args, "comparison", logs, name, folder=job.folder, recorded=settings_of(job))


def accuracy_of(folder: Path) -> float:
    """The accuracy in the evaluation in a cell's folder."""
    return mean_accuracy(problem_accuracies(folder / EVALUATION_DIR / "responses"))


def result_of(cell: TrainedCell, reward_func: str = REWARD_FUNC) -> CellResult:
    """The results of a cell that is done; the learning curve is of the reward function that judges the evaluation."""
    return cell_result(cell.variant.name, cell.seed, cell.folder, reward_func)


def summary_of(job: CompareJob, results: list[CellResult]) -> dict[str, Any]:
    """The numbers of the comparison, with the settings that they belong to."""
    comparison = job.comparison
    return {
        "name": comparison.name,
        **comparison_summary(
            results,
            list(comparison.variants),
            comparison.baseline,
            comparison.seeds,
            comparison.replication_seeds,
            comparison.outcome,
            comparison.measure,
        ),
        "evaluation": comparison.evaluation,
        **({"evaluation_prompts": comparison.prompts} if comparison.prompts else {}),
        "recovery": comparison.recovery,
        "overrides": {name: variant.overrides for name, variant in comparison.variants.items()},
        "distinguishing": {name: comparison.distinguishing(name) for name in comparison.variants},
        "doses": doses_of(comparison.variants),
    }


def show_comparison(summary: dict[str, Any], failures: dict[str, str]) -> None:
    """Print the tables of the outcome and of accuracies, the verdicts, and what a reader must know."""
    name = summary["outcome"]["name"]
    tables = {} if name == FINAL_ACCURACY else {OUTCOMES[name].words: outcome_table(summary, name)}
    tables["accuracy"] = accuracy_table(summary)
    if summary["replication"] is not None:
        tables["accuracy, replication seeds"] = accuracy_table({**summary, **summary["replication"]})
    for words, (header, rows) in tables.items():
        show_table(f"{summary['name']}, {words}, in %", header, rows)
    for line in [*verdict_lines(summary), *remarks(summary, failures)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def show_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a table whose first column is text, and whose other columns are numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index, name in enumerate(header):
        words = "\n".join(name.rsplit(" ", 1))  # a narrow terminal has room for the numbers
        whole = "difference" not in name
        table.add_column(words, justify="right" if index else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def show_plan(plan: Plan) -> None:
    """Print how many seeds show which difference."""
    words, area = OUTCOMES[plan.outcome].words, OUTCOMES[plan.outcome].averages_training
    degrees = "" if plan.spread.degrees is None else f" with {plan.spread.degrees} degrees of freedom"
    lines = [
        f"Outcome: {words}. From seed to seed a difference between two variants has a standard deviation of "
        f"{plan.spread.value:.3g} points{degrees} ({plan.source})."
    ]
    header = ["true difference, points", "seeds, one comparison"]
    header += [f"seeds, {plan.comparisons} comparisons (Holm)"] if plan.comparisons > 1 else []
    rows = []
    for effect, counts in plan.seeds.items():
        shown = [f"more than {MOST_SEEDS:,}" if count is None else f"{count:,}" for count in counts]
        rows.append([f"{effect:g}", *shown[: len(header) - 1]])
    if plan.recommended is not None:
        lines.append(
            f"{plan.recommended:,} seeds of each variant show a true difference of {plan.effect:g} points with a "
            "power of at least 80 % at a level of 5 %, paired by seed."
        )
    if plan.recommended == ENOUGH_SEEDS[area] > 2:
        lines.append(
            f"With fewer than {ENOUGH_SEEDS[area]} seeds, intervals of the {words} are approximate: with seeds that "
            f"jump and sag as pocket's do, they hold the true difference in less than {100 * WANTED_COVERAGE:.0f} %."
        )
    console.print(lines[0], highlight=False, soft_wrap=True)
    show_table("Seeds for a power of 80 % at a level of 5 %", header, rows)
    for line in lines[1:]:
        console.print(line, highlight=False, soft_wrap=True)


def show_cells(job: CompareJob, scripts: Scripts = SCRIPTS) -> None:
    """Print the cells and an estimate of what they take."""
    comparison = job.comparison
    table = Table(title=f"{len(job.cells)} cells", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("variant", no_wrap=True)
    table.add_column("seeds", no_wrap=True)
    table.add_column(f"set otherwise than {comparison.baseline}", overflow="fold")
    for variant in comparison.variants.values():
        distinguishing = ", ".join(
            f"{name}: {value}" for name, value in comparison.distinguishing(variant.name).items()
        )
        seeds = " ".join(map(str, comparison.seeds))
        if comparison.replication_seeds:
            seeds += f" / {' '.join(map(str, comparison.replication_seeds))}"
        table.add_row(variant.name, seeds, distinguishing)
    console.print(table)
    cost = measured_cost(comparison, scripts)
    parallel = comparison.parallel
    every = len(job.cells) * cost.cell / parallel
    console.print(
        f"Estimate, from {cost.measured} updates of {comparison.baseline}: {cost.step:.2f} s an update x "
        f"{cost.updates} + {cost.start:.0f} s to start = {duration(cost.cell)} to train a cell; {len(job.cells)} "
        f"cells, {parallel} at once: {duration(every)}. Held-out scores, probes, evaluation and recovery come on "
        "top, and other variants may take longer.",
        highlight=False,
    )


def main(arguments: list[str] | None = None, scripts: Scripts = SCRIPTS) -> int:
    """Exit status: 0; 1 if some cell failed; 2 after a user's mistake; 130 after Ctrl-C, 143 after SIGTERM."""
    jobs: list[CompareJob] = []

    def start(job: CompareJob | PlanJob) -> None:
        if isinstance(job, PlanJob):
            show_plan(job.plan)
            return
        jobs.append(job)
        run(job, scripts)

    status = run_guarded(__file__, lambda: prepare_plan_or_comparison(arguments), start)
    return status or int(any(cell.failure is not None for job in jobs for cell in job.cells))


if __name__ == "__main__":
    sys.exit(main())
