"""The notebook runs from its first cell to its last, and shows what it says; it is kept without outputs."""

import ast
import json
from typing import Any

from helpers.documents import ROOT
from matplotlib.figure import Figure

MAGIC = "%matplotlib inline\n"
"""The first line, which lets Jupyter draw figures."""

NOTEBOOK = ROOT / "docs" / "first_look.ipynb"


def run_cell(source: str, namespace: dict[str, Any]) -> Any:
    """Run a cell as Jupyter does: the value of its last expression is what it shows."""
    tree = ast.parse(source.removeprefix(MAGIC))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, NOTEBOOK.name, "exec"), namespace)
    return None if last is None else eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), namespace)


def test_it_runs_and_shows_a_figure_shaded_tokens_and_the_explorer() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    namespace: dict[str, Any] = {}
    numbers, figure, tokens, explorer = [run_cell("".join(cell["source"]), namespace) for cell in cells][1:]
    assert "<table" in numbers._repr_html_()
    assert isinstance(figure, Figure)
    assert tokens.is_high.any()
    assert tokens._repr_html_().count("<span") > len(tokens.tokens)
    assert "Explore the responses" in explorer._repr_html_()
