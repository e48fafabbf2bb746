"""Tables in Markdown."""

import re
from collections.abc import Sequence

HTML_OPENING = re.compile(r"<(?=[A-Za-z/!?])")
"""The start of a tag or a comment, which a Markdown renderer would take as HTML."""


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table as text. Bars, line ends and tags in cells are escaped; all else stays."""
    lines = [[_escaped(cell) for cell in row] for row in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escaped(cell: str) -> str:
    return HTML_OPENING.sub("&lt;", " ".join(cell.replace("|", "\\|").splitlines()))
