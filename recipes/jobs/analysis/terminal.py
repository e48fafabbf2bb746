"""The terminal output of the shift analyses."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from tokenshift.analysis.report.statements import NOT_SEEN, SEEN, Statement, of_this_run
from tokenshift.analysis.sampling.correctness import correctness_words, none_correct_remark
from tokenshift.analysis.sampling.trajectories import read_trajectories
from tokenshift.analysis.shift.robustness import ROBUSTNESS_COLUMNS
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.analysis.thresholds import CORRECT
from tokenshift.analysis.token_table.measure import DEFAULT_MEASURE, measure_name, second_measure
from tokenshift.recipes.command_line.console import console

VERDICT_COLOURS = {SEEN: "green", NOT_SEEN: "red"}
"""Other verdicts are yellow."""

RUNS_PRODUCTS = ("report.html", "runs.json", "figures", "runs")

SHIFT_PRODUCTS = ("report.html", "summary.json", "figures", "table")


ROBUSTNESS_ON_TERMINAL = (
    "trajectories",
    "T",
    "top-p",
    "accuracy",
    "JS < 1e-3",
    "exactly 0",
    "full JS there, nats",
    "full JS < 1e-3",
    "JS > 0.1",
    "overlap@2, high",
)
"""The columns of a robustness analysis that a terminal has room for."""


def show_counted(folder: RunFolder, metadata: Mapping[str, Any]) -> None:
    """Print which responses count as correct, and that none does where rewards never reach the threshold.

    Args:
        folder: The run's folder, with the trajectories of all its policies.
        metadata: The tables' metadata, with `reward` and `correct_threshold` where a reward judged.
    """
    rule = correctness_words(metadata)
    if rule is None:
        return
    print(f"A response counts as correct where {rule}.")
    files = sorted(folder.path.glob("**/trajectories/*.parquet"))
    rewards = [trajectory.reward for file in files for trajectory in read_trajectories(file)]
    remark = none_correct_remark(rewards, metadata.get("correct_threshold", CORRECT))
    if remark is not None:
        print(remark)


def show_statements(
    by_kind: dict[str, list[Statement]],
    folder: RunFolder,
    products: Sequence[str] = SHIFT_PRODUCTS,
    measure: str = DEFAULT_MEASURE,
) -> None:
    """Print one table of statements per kind of trajectory, and where the products are.

    Args:
        by_kind: The statements by kind of trajectory.
        folder: The run's folder.
        products: Names of the files and folders in it that are printed.
        measure: The measure of the figures; those by the other one are in a second column.
    """
    second = measure_name(second_measure(measure) or "")
    for kind, statements in by_kind.items():
        table = Table(title=f"along {kind} trajectories, 95 % intervals by problem", title_justify="left")
        beside = any(statement.second is not None for statement in statements)
        here = f"here, {measure_name(measure)}"
        for name in ("statement", "published", here, "verdict", *([f"by {second}"] if beside else [])):
            table.add_column(name, overflow="fold")
        for statement in statements:
            cells = [statement.text, statement.published, statement.measured, _coloured(statement.verdict)]
            if beside:
                cells.append(f"{statement.second}: {_coloured(statement.second_verdict)}")
            table.add_row(*cells)
        console.print(table)
    for name in products:
        print(f"{name:14} {folder.path / name}")


def _coloured(verdict: str | None, words: str | None = None) -> str:
    words = of_this_run(verdict) if words is None else words
    return f"[{VERDICT_COLOURS.get(verdict or '', 'yellow')}]{words}[/]"


def show_runs(summary: Mapping[str, Any], folder: RunFolder) -> None:
    """Print what several runs say together, one table per recipe and kind of trajectory, and where the products are.

    Args:
        summary: The numbers of `runs_summary`.
        folder: Where the products are.
    """
    here = measure_name(summary["measure"], summary["top_p"])
    for kind, numbers in summary["kinds"].items():
        tables = {
            f"{name}, {len(summary['groups'][name])} runs": group["statements"]
            for name, group in numbers["groups"].items()
            if group["statements"]
        }
        for title, statements in {**tables, "recipes side by side": numbers["comparisons"]}.items():
            table = Table(
                title=f"{title}, along {kind} trajectories, 95 % intervals over runs and problems",
                title_justify="left",
            )
            for name in ("statement", "published", f"over runs, {here}", "verdict"):
                table.add_column(name, overflow="fold")
            for one in statements:
                verdict = _coloured(one["verdict"], one["verdict"])
                table.add_row(one["text"], one["published"], one["measured"], verdict)
            console.print(table)
    for name in RUNS_PRODUCTS:
        print(f"{name:14} {folder.path / name}")


def show_robustness(rows: Sequence[dict[str, Any]], folder: RunFolder, products: Sequence[str]) -> None:
    """Show the main columns of a robustness analysis without their intervals, and where the products are.

    Args:
        rows: the rows of `robustness_row`.
        folder: the folder of the run.
        products: names of the products in it.
    """
    table = Table(title="shares in %; 95 % intervals and more are in robustness.md", title_justify="left")
    columns = [ROBUSTNESS_COLUMNS.index(name) for name in ROBUSTNESS_ON_TERMINAL]
    for name in ROBUSTNESS_ON_TERMINAL:
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*(row["cells"][index].split(" [")[0] for index in columns))
    console.print(table)
    for name in products:
        print(f"{name:16} {folder.path / name}")
