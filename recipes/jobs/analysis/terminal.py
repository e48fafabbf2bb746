"""The terminal output of the shift analyses."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from tokenshift.analysis.report.statements import NOT_SEEN, SEEN, Statement, deciding_words
from tokenshift.analysis.sampling.correctness import correctness_words, none_correct_remark
from tokenshift.analysis.sampling.trajectories import read_trajectories
from tokenshift.analysis.shift.conclusions import shift_conclusions
from tokenshift.analysis.shift.report import REPORT_FILE, read_summary
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
    """Print the statements of each kind of trajectory, and where the products are.

    Args:
        by_kind: The statements by kind of trajectory.
        folder: The run's folder.
        products: Names of the files and folders in it that are printed.
        measure: The measure of the figures; those by the other one stand below.
    """
    second = measure_name(second_measure(measure) or "")
    for kind, statements in by_kind.items():
        _title(f"What this run shows along {kind} trajectories, by {measure_name(measure)}; 95 % intervals by problem")
        grid = _grid()
        for statement in statements:
            said = _said(statement.text, statement.published, statement.measured, deciding_words(statement))
            if statement.second not in (None, statement.measured):
                verdict = "" if statement.second_verdict == statement.verdict else f"{statement.second_verdict}: "
                said.append(f"\nby {second} {verdict}{statement.second}", style="not bold dim")
            grid.add_row(_coloured(statement.verdict), said)
        console.print(grid, highlight=False)
    for name in products:
        print(f"{name:14} {folder.path / name}")


def show_conclusions(folder: RunFolder) -> None:
    """Print the numbers that a shift analysis's page begins with, and where the page is.

    Args:
        folder: The folder of a finished analysis.
    """
    _title("In short, with 95 % intervals by problem")
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    for one in shift_conclusions(read_summary(folder.path)["kinds"]):
        interval = f"({one.interval}) " if one.interval else ""
        grid.add_row(Text(one.value, style="bold"), Text(f"{interval}{one.sentence}"))
    grid.add_row("look at", Text(str(folder.path / REPORT_FILE)))
    console.print(grid, highlight=False)


def _title(words: str) -> None:
    console.print(Text(f"\n{words}", style="underline"))


def _grid() -> Table:
    """Verdicts on the left, what they are on at the right."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _said(text: str, published: str, measured: str, remark: str) -> Text:
    """A statement, what is published, and on the next line what was measured, with a remark if there is one."""
    said = Text(text, style="bold")
    return said.append(f" (published: {published})\n{measured}{remark and f'; {remark}'}", style="not bold")


def _coloured(verdict: str) -> str:
    return f"[{VERDICT_COLOURS.get(verdict, 'yellow')}]{verdict}[/]"


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
            _title(f"{title}, along {kind} trajectories, by {here}; 95 % intervals over runs and problems")
            grid = _grid()
            for one in statements:
                verdict, _, reason = one["verdict"].partition(": ")
                grid.add_row(_coloured(verdict), _said(one["text"], one["published"], one["measured"], reason))
            console.print(grid, highlight=False)
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
