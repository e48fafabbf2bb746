"""Tables in Markdown."""

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The lines of a table. Bars and line ends in cells, which would end them, are replaced; all else stays."""
    lines = [[" ".join(cell.replace("|", "\\|").splitlines()) for cell in row] for row in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
