"""What the shift analysis shows in a terminal."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from tokenshift.analysis.shift.claims import NOT_SEEN, SEEN, Statement
from tokenshift.analysis.shift.robustness import ROBUSTNESS_COLUMNS
from tokenshift.analysis.storage.run_folder import RunFolder
from tokenshift.recipes.command_line.console import console

COLOURS = {SEEN: "green", NOT_SEEN: "red"}


PRODUCTS = ("report.html", "summary.json", "figures", "table")


def show_statements(found: dict[str, list[Statement]], folder: RunFolder, products: Sequence[str] = PRODUCTS) -> None:
    """A table a kind of trajectory, and where the products are.

    Args:
        found: statements by kind.
        folder: of the run.
        products: in it, to be named.
    """
    for kind, statements in found.items():
        table = Table(title=f"along {kind} trajectories, 95 % intervals by problem", title_justify="left")
        for name in ("statement", "published", "here", "verdict"):
            table.add_column(name, overflow="fold")
        for each in statements:
            colour = COLOURS.get(each.verdict, "yellow")
            table.add_row(each.text, each.published, each.found, f"[{colour}]{each.verdict}[/]")
        console.print(table)
    for name in products:
        print(f"{name:14} {folder.path / name}")


def show_robustness(rows: Sequence[dict[str, Any]], folder: RunFolder, products: Sequence[str]) -> None:
    """Show the table of a robustness analysis without its intervals, and where the products are.

    Args:
        rows: the rows of `robustness_row`.
        folder: the folder of the run.
        products: names of the products in it.
    """
    table = Table(title="shares in %; their 95 % intervals are in robustness.md", title_justify="left")
    for name in ROBUSTNESS_COLUMNS:
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*(cell.split(" [")[0] for cell in row["cells"]))
    console.print(table)
    for name in products:
        print(f"{name:16} {folder.path / name}")
