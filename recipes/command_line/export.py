"""`tokenshift export SOURCE FILE`: a table of an output folder as CSV or TSV."""

from pathlib import Path

from tokenshift.recipes.command_line.plain_parser import PlainParser
from tokenshift.recipes.command_line.start import MISTAKE, as_mistake, report_mistake, show


def main(arguments: list[str] | None = None) -> int:
    """Write a table as text, and print where it is.

    Args:
        arguments: The words after `tokenshift export`; `sys.argv`'s when None.

    Returns:
        Exit status 0, or 2 after words that it does not take, a source that holds no table, or columns of lists.
    """
    parser = PlainParser(
        prog="tokenshift export",
        description="Write the per-token table of an analysis, or another Parquet file of an output folder, as CSV or "
        "TSV. Columns of lists are refused by name.",
        allow_abbrev=False,
    )
    parser.add_argument("source", type=Path, help="output_dir of an analysis, a Parquet file, or a folder of them")
    parser.add_argument("file", type=Path, help="the new file, which ends in .csv or .tsv; an old one is replaced")
    parser.add_argument("--columns", nargs="+", metavar="NAME", help="the wanted columns, in order; by default all")
    try:
        given = parser.parse_args(arguments)
        from tokenshift.analysis.token_table.export import export_table  # here: --help and mistakes do not wait for it

        table = given.source.expanduser() / "table"
        source = table if table.is_dir() else given.source.expanduser()
        path = export_table(source, given.file, columns=given.columns)
    except (ValueError, OSError) as error:
        report_mistake("tokenshift export", as_mistake(error))
        return MISTAKE
    show(str(path))
    return 0
