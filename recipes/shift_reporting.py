"""What the shift analysis shows in a terminal."""

from typing import Any

from rich.table import Table

from tokenshift.analysis.shift_run import RunFolder
from tokenshift.analysis.statements import NOT_SEEN, SEEN, Statement
from tokenshift.recipes.reporting import console

COLOURS = {SEEN: "green", NOT_SEEN: "red"}


def show_statements(found: dict[str, list[Statement]], folder: RunFolder) -> None:
    """A table a kind of trajectory, and where the products are.

    Args:
        found: statements by kind.
        folder: of the run.
    """
    for kind, statements in found.items():
        table = Table(title=f"along {kind} trajectories, 95 % intervals by problem", title_justify="left")
        for name in ("published", "figure", "here", ""):
            table.add_column(name, overflow="fold")
        for each in statements:
            colour = COLOURS.get(each.verdict, "yellow")
            table.add_row(each.text, each.published, each.found, f"[{colour}]{each.verdict}[/]")
        console.print(table)
    for name in ("report.html", "summary.json", "figures", "table"):
        print(f"{name:13} {folder.path / name}")


def plain(value: Any) -> str:
    """A number for a table; a dash where there is none."""
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
