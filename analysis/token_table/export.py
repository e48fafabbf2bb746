"""A per-token table, or any other table of the project, as CSV or TSV."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv

from tokenshift.analysis.storage.parquet_files import FAULTS, damaged, open_parquet
from tokenshift.analysis.storage.whole_file import whole_file
from tokenshift.analysis.token_table.reader import Source, arrow_source, listed_columns, table_files

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""File suffix -> delimiter between two values."""

BATCH_ROWS = 2**16


def export_table(source: Source | pd.DataFrame, path: str | Path, *, columns: Sequence[str] | None = None) -> Path:
    """Write a table as CSV or TSV, UTF-8 with a header. The file appears whole or not at all.

    Texts stand in quotes, a quote in them twice; line ends inside of them are kept. A missing value is an empty field
    without quotes. Numbers have as many digits as give the same number again.

    Args:
        source: a pyarrow table, a pandas DataFrame (its index is left out), a Parquet file or a folder of them.
        path: the file; its suffix, `.csv` or `.tsv`, says which. Missing folders are made, a file of this name is
            replaced.
        columns: names of the wanted columns, in the wanted order; all when None.

    Returns:
        The file's path.

    Raises:
        ValueError: for another suffix, a column that is not there or named twice, a column of lists (such as
            `prompt_ids` of trajectories), which a field cannot hold, files of a folder with other columns or types
            than the first, or a damaged file.
    """
    path, source = Path(path).expanduser(), arrow_source(source)
    if path.suffix.lower() not in DELIMITERS:
        raise ValueError(f"{str(path)!r} must end in {' or '.join(DELIMITERS)}, which says how it is written.")
    schema = _flat_schema(source, columns)
    options = pacsv.WriteOptions(delimiter=DELIMITERS[path.suffix.lower()])
    with whole_file(path) as partial, pacsv.CSVWriter(partial, schema, write_options=options) as writer:
        for part in _parts(source, schema.names):
            writer.write_table(part.cast(schema))
    return path


def _flat_schema(source: Source, columns: Sequence[str] | None) -> pa.Schema:
    """The wanted columns with the types that are written.

    Raises:
        ValueError: if one is not there, or holds lists.
    """
    whole = source.schema if isinstance(source, pa.Table) else _common_schema(table_files(source))
    names = whole.names if columns is None else list(columns)
    if twice := sorted({name for name in names if names.count(name) > 1 or whole.names.count(name) > 1}):
        raise ValueError(f"The {listed_columns(twice)} would stand in the file twice; name each column once.")
    if not names:
        raise ValueError("There is no column to write; name at least one, or none for all of them.")
    if missing := [name for name in names if name not in whole.names]:
        raise ValueError(f"The table has no {listed_columns(missing)}; it has {', '.join(whole.names)}.")
    if nested := [name for name in names if pa.types.is_nested(whole.field(name).type)]:
        flat = ",".join(name for name in names if name not in nested)
        raise ValueError(
            f"A field of a CSV or TSV file holds one value, but the {listed_columns(nested)} "
            f"{'holds' if len(nested) == 1 else 'hold'} lists; choose others by columns: {flat or 'there are none'}."
        )
    return pa.schema([(name, _written(whole.field(name).type)) for name in names])


def _common_schema(files: Sequence[Path]) -> pa.Schema:
    """The columns and types of a folder's files, which all have.

    Raises:
        ValueError: if one has others than the first.
    """
    first, *others = (open_parquet(file).schema_arrow.remove_metadata() for file in files)
    for file, schema in zip(files[1:], others, strict=True):
        if not schema.equals(first):
            different = {*schema}.symmetric_difference({*first})
            names = listed_columns(sorted({field.name for field in different}))
            raise ValueError(f"{file} has other columns or types than {files[0]} ({names}); export each by itself.")
    return first


def _written(kind: pa.DataType) -> pa.DataType:
    """The type that a column is written as: categories as their values."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _parts(source: Source, names: list[str]) -> Iterator[pa.Table]:
    if isinstance(source, pa.Table):
        yield source.select(names)
        return
    for file in table_files(source):
        try:
            for batch in open_parquet(file).iter_batches(BATCH_ROWS, columns=names):
                yield pa.Table.from_batches([batch]).select(names)
        except FAULTS as error:
            raise damaged(file, str(error).splitlines()[0]) from error
